"""The lanes: which versions of Python, Django and PostgreSQL run which tests together."""

from dataclasses import dataclass

WHOLE = ("tests",)


def _of(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/database/test_{name}.py" for name in names)


# Tests whose result can depend on the version of PostgreSQL: catalogue, contract, drift, migrations, adoption, privileges, backups and the engine.
OF_THE_SERVER = (
    "tests/postgres", "tests/test_deletion.py", "tests/test_migration_locks.py", "tests/test_queries.py",
    "tests/administration/test_references_of_others.py",
    *_of(
        "mutations", "contract", "drift", "sql", "lazy_state", "home", "health_alarms", "autovacuum", "security_reach", "dbstatus", "dbhealth",
        "security", "untrusted_code", "untrusted_triggers", "trigger_creators", "locked_references", "dbroles", "migrate", "migrate_waits", "reversals",
        "losses", "written_by_triggers", "lookalike_functions",
        "concurrent_builds", "dbadopt", "dbadopt_columns", "dbseed", "dbperson", "dbperson_untrusted_code", "backup",
        "row_hashes", "toc_entries",
        "backup_verdicts", "backup_hostile_code", "restore", "restore_into_empty", "restore_roles",
        "restore_staff",
    ),
)  # fmt: skip
# The slow ones of these, except kills, races and large data, which behave the same on each version.
SLOW_OF_THE_SERVER = _of(
    "adoption_drift", "contract", "mutations", "dbadopt", "dbadopt_columns", "concurrent_builds", "migrate_hazards", "backup",
    "row_hashes", "toc_entries", "backup_verdicts", "backup_hostile_code", "restore", "restore_into_empty",
    "restore_roles", "restore_staff", "untrusted_code", "untrusted_triggers", "trigger_creators",
    "dbperson_untrusted_code", "home", "health_alarms", "dbstatus", "dbseed", "lookalike_functions", "locked_references", "reversals", "losses", "security", "security_reach",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lane:
    """Versions, and the tests that run on them: those of `make test`."""

    name: str
    python: str
    django: str
    postgresql: int
    tests: tuple[str, ...]


# Each version runs the whole suite in one lane at least, and the pinned Python and Django run on each server: 15 in CI.
LANES = (
    Lane("py311-dj52-pg18", "3.11", "5.2.19", 18, WHOLE),
    Lane("py311-dj52-pg14", "3.11", "5.2.19", 14, WHOLE),
    Lane("py312-dj60-pg17", "3.12", "6.0.10", 17, WHOLE),
    Lane("py313-dj61-pg16", "3.13", "6.1.3", 16, WHOLE),
    Lane("py313-dj52-pg15", "3.13", "5.2.19", 15, WHOLE),
    Lane("pg16", "3.11", "5.2.19", 16, OF_THE_SERVER),
    Lane("pg17", "3.11", "5.2.19", 17, OF_THE_SERVER),
)
