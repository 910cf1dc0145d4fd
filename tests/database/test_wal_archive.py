"""What dbhealth says of the archive of WAL: a command that is missing, fails or hangs."""

from dataclasses import replace

import pytest

from fly2any.database.findings import Finding
from tests.database.test_dbhealth import found, of
from tests.database.test_health_privileges import asked
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("server")

FIGURE = "WAL to archive"
SEGMENTS = "CREATE TABLE t{0} (); SELECT pg_switch_wal()"


def archived(server, *, segments, **limits):
    """The figure and the findings, after the server has filled segments of 16 MB each."""
    for number in range(segments):
        server.execute(SEGMENTS.format(number))
    server.execute("CHECKPOINT")
    figures, findings = asked(of(server), "replication", **limits)
    return figures[FIGURE], findings


def test_an_archive_without_a_command_is_found(own_server):
    server = own_server(archive_mode="on")

    figure, findings = archived(server, segments=3)

    assert findings == [
        Finding(
            "error", "replication.archive", "archive_command",
            "archive_mode is on, but no archive_command (or archive_library) is set: the server archives no WAL, and keeps it until its disk is full.",
            "Set archive_command and run SELECT pg_reload_conf(); or, if no archive is wanted, set archive_mode to off and restart the server.",
        )
    ]  # fmt: skip
    assert server.execute("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'") == [(3,)]
    assert figure == ("48.0 MB", 3 * 2**24)


def test_an_archive_command_that_hangs_is_found(own_server, tmp_path):
    tmp_path.chmod(0o755)
    server = own_server(archive_mode="on", archive_command=f"until test -e {tmp_path}/go; do sleep 0.1; done")

    figure, [finding] = archived(server, segments=3, most=2**25)
    allowed = found(of(server), "replication")
    (tmp_path / "go").touch()
    wait_until(of(server), "SELECT 1 FROM pg_stat_archiver WHERE archived_count = 3")
    server.execute(SEGMENTS.format("_last"))

    assert figure == ("48.0 MB", 3 * 2**24)
    assert (str(finding.severity), finding.code, finding.where, finding.message, finding.cure) == (
        *("warning", "replication.archive", "archive_command"),
        "48.0 MB of WAL waits to be archived (limit 32.0 MB), which fills the disk; no segment has been archived yet.",
        "Check on the server whether the command (SHOW archive_command) hangs or is too slow.",
    )
    assert allowed == []
    assert found(of(server), "replication", most=2**25) == []


def test_what_waits_to_be_archived_is_not_known_to_every_role(own_server):
    server = own_server(archive_mode="on", archive_command="true")
    server.execute("CREATE ROLE plain LOGIN")

    figures, findings = asked(replace(of(server), user="plain"), "replication")

    assert (figures[FIGURE], findings) == (("not visible to this role: GRANT pg_monitor", None), [])


def test_no_archive_is_no_finding(own_server):
    figures, findings = asked(of(own_server()), "replication")

    assert (FIGURE in figures, findings) == (False, [])
