"""Tables of ours that another program attached to a partitioned table, and columns whose long values are refused."""

import pytest
from django.db import connection

from fly2any.database.findings import Finding
from fly2any.database.health.examine import Reader
from fly2any.database.health.security_code import code
from fly2any.database.verification import verify
from fly2any.database.write_check import check_writes
from tests.conftest import django
from tests.database.test_writes import run

DETACH = 'Ask its owner first, then run: ALTER TABLE theirs DETACH PARTITION "notifications";'


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("parted", "bound", "severity", "refuses"),
    [
        ("LIST (type)", "FOR VALUES IN ('x')", "error", "refuses rows outside its bound, ((type IS NOT NULL) AND (type = 'x'::text))"),
        ("LIST (type)", "DEFAULT", "note", "accepts every row now"),
        ("RANGE (type)", "FOR VALUES FROM (MINVALUE) TO (MAXVALUE)", "note", "accepts every row now"),
        ("RANGE (\"readAt\")", "FOR VALUES FROM (MINVALUE) TO (MAXVALUE)", "error", "refuses rows outside its bound, (\"readAt\" IS NOT NULL)"),
    ],
)  # fmt: skip
def test_an_attached_table_is_found_with_its_bound(parted, bound, severity, refuses):
    run(f"CREATE TABLE theirs (LIKE notifications) PARTITION BY {parted}")
    run(f"ALTER TABLE theirs ATTACH PARTITION notifications {bound}")

    (finding,) = verify(connection).findings

    said = f"Table notifications is a partition of the unmanaged table theirs, and {refuses}."
    assert (finding.severity, finding.code, finding.message, finding.cure) == (severity, "table.partition", said, DETACH)


@pytest.mark.django_db
def test_a_column_whose_long_values_are_refused_is_a_warning():
    run("ALTER TABLE ai_messages ALTER content SET STORAGE PLAIN; ALTER TABLE ai_messages ALTER id SET STORAGE MAIN")

    (finding,) = verify(connection).findings

    assert (finding.severity, finding.code, finding.where) == ("warning", "column.storage", "ai_messages.content")
    assert finding.message.endswith(" has STORAGE PLAIN: a write of more than about 8,000 bytes fails.")
    run(finding.cure)
    assert verify(connection).findings == ()


def test_the_triggers_that_a_table_has_from_the_partitioned_table_are_found(migrated):
    """Before PostgreSQL 15, they are marked as internal."""
    migrated.execute(
        "CREATE TABLE theirs (LIKE sessions) PARTITION BY LIST (id); ALTER TABLE theirs ATTACH PARTITION sessions DEFAULT;"
        "CREATE TABLE more (u text, n int) PARTITION BY LIST (n);"
        "CREATE TABLE part PARTITION OF more (FOREIGN KEY (u) REFERENCES users ON DELETE CASCADE) DEFAULT;"
        "CREATE FUNCTION sets() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;"
        "CREATE TRIGGER zz BEFORE INSERT ON theirs FOR EACH ROW EXECUTE FUNCTION sets();"
        "CREATE TRIGGER yy BEFORE DELETE ON more FOR EACH ROW EXECUTE FUNCTION sets()"
    )
    with django(migrated) as connection:
        findings = [one for one in verify(connection).findings if one.code == "trigger.extra"]
        reach = [one.where for one in code(Reader(connection, "public")) if isinstance(one, Finding)]
        tried = check_writes(connection)

    assert [(str(one.severity), one.where) for one in findings] == [("note", "part.yy"), ("error", "sessions.zz")]
    assert reach == ["sessions.zz"]
    assert (tried.failed, tried.refused_by) == ("sessions", {"zz"})
