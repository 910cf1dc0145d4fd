"""The exit codes of the commands: their names only.

`Report.exit_code` (report/collect.py) decides the code of dbstatus and dbhealth, `Maintenance.exit_code` (maintenance/run.py)
that of dbmaintain, and `Assessment.exit_code` (adoption/assessment.py) that of dbadopt. dbbackup, dbreset, dbperson and dbcontract
decide in their modules of management/commands. manage.py ends with 2 on each error that errors.explain() knows, and
management/utility.py on a CommandError, except that Django's failed system checks keep Django's own code, 1.

4 of dbstatus and dbhealth means an error or a warning that no waiver covers, 5 of dbstatus that migrations are pending too; notes
never change the code.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """0 is success. An unknown error ends with 1, and manage.py with 130 after Ctrl-C and with 143 after SIGTERM."""

    OK = 0
    PENDING = 1  # Migrations are pending.
    REFUSED = 2  # The command failed; one sentence gives the reason.
    FOUND = 4  # The command found something: findings, blockers, remaining data, a difference, a bad backup.
    FOUND_AND_PENDING = 5
