"""Conditions that the planner cannot judge are tried on sample rows: a finding names a row, otherwise there is a note."""

import pytest
from django.db import connection

from fly2any.database.schema.objects import Column
from fly2any.database.schema.samples import find_clash, judge, samples
from fly2any.database.schema.unmanaged import AGREE
from fly2any.database.verification import verify
from tests.database.test_writes import run

CONTRACT = "refuses rows that the contract allows, such as"
RAISES = "raises an error for rows that the contract allows, such as"
ALWAYS = "raises an error for each sample row, such as"
TRIED = "is unmanaged and refused no sample row: a write fails where"
SAME = f"{TRIED} two rows have the same value."

CHECKS = [
    ("email = email AND email <= email", None),
    ("num_nonnulls(id) = 1", ("note", f"{TRIED} it is false.")),
    ("CASE WHEN name IS NULL THEN true ELSE length(name) >= 0 END", ("note", f"{TRIED} it is false.")),
    ("coalesce(length(name), 0) >= 0", ("note", f"{TRIED} it is false.")),
    ("left(email, 9)::varchar(9) IS NOT NULL", ("note", f"{TRIED} it is false.")),
    ("length(id) < 0 OR length(id) > -1", None),
    ("email ~ '@'", ("warning", f"{CONTRACT} email = 'a'.")),
    ("length(name) < 25", ("warning", f"{CONTRACT} name = repeat('a', 300).")),
    ("name <> 'Bob'", ("warning", f"{CONTRACT} name = 'Bob'.")),
    ("name IS NOT NULL", ("warning", f"{CONTRACT} name is NULL.")),
    ("lower(email) = email", ("warning", f"{CONTRACT} email = 'A'.")),
    ('"createdAt" <= now()', ("warning", f"{CONTRACT} createdAt = 'infinity'.")),
    ('"createdAt" > current_date', ("warning", f"{CONTRACT} createdAt = '2000-01-01'.")),
    ("random() < 2 OR email = 'a'", ("warning", "may refuse rows that the contract allows.")),
    ("email IS JSON", ("warning", f"{CONTRACT} email = 'a'.")),
    ("1 / length(id) >= 0", ("warning", f"{RAISES} id = ''.")),
    ("length(id) / 0 > 0", ("error", f"{ALWAYS} id = 'a': writes fail.")),
    ("theirs IS NULL OR (theirs > 0 AND length(id) >= 0)", ("note", f"{TRIED} it is false.")),
    ("theirs IS NULL OR theirs <> length(id)", ("warning", f"{CONTRACT} id = 'a' and theirs = 1.")),
    ("theirs_none::text IS JSON ARRAY", ("error", "refuses theirs_none = 0, which every INSERT stores.")),
    ("to_char(theirs_none, '9') <> ''", None),
    ("random() <= theirs_none + 1", ("note", "was not tried with what our INSERT stores.")),
    ("1 / theirs_none > 0", ("error", f"{ALWAYS} theirs_none = 0: writes fail.")),
]


def of_users(*changes, after="SELECT 1"):
    """The severity and the message of each finding on what these clauses of ALTER TABLE users add."""
    run(f"ALTER TABLE users {', '.join(changes)}", after)
    return {one.where.removeprefix("users."): (one.severity, one.message) for one in verify(connection).findings}


@pytest.mark.django_db
def test_a_check_is_reported_with_a_row_that_it_rejects():
    checks = [one for one in CHECKS if connection.pg_version >= 160000 or "IS JSON" not in one[0]]
    found = of_users(
        "ADD theirs int",
        "ADD theirs_none int DEFAULT 0",
        *(f"ADD CONSTRAINT check_{place} CHECK ({check}) NOT VALID" for place, (check, _) in enumerate(checks)),
    )

    said = {check: found.get(f"check_{place}") for place, (check, _) in enumerate(checks)}
    ends = {
        check: expected and said[check] and (said[check][0], said[check][1][-len(expected[1]) :]) for check, expected in checks
    }
    assert ends == dict(checks)
    assert said[checks[2][0]][1].startswith(
        "Constraint check_2 of users, CHECK ( CASE WHEN (name IS NULL) THEN true ELSE (length(name) >= 0) END), is unmanaged"
    )


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("to_char(VALUE, '9') <> ' 1'", ("error", "refuses 1, which every INSERT stores.")),
        ("to_char(VALUE, '9') <> ' 2'", None),
        ("random() < VALUE + 1", ("note", "has conditions that were not tried.")),
    ],
)
def test_a_domain_is_tried_with_what_an_insert_stores(condition, expected):
    run("CREATE DOMAIN theirs AS int", "ALTER TABLE users ADD theirs theirs DEFAULT 1")
    found = of_users("ALTER theirs SET DEFAULT 1", after=f"ALTER DOMAIN theirs ADD CHECK ({condition}) NOT VALID").get("theirs")

    assert (found and (found[0], found[1][-len(expected[1]) :] if expected else found[1])) == expected


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("(length(id) / 0)", ("error", f"and its expression (length(id) / 0) {ALWAYS} id = 'a': writes fail.")),
        ("(length(name) / 0)", ("warning", f"and its expression (length(name) / 0) {RAISES} name = 'a'.")),
        ("(10 / length(id))", ("warning", f"and its expression (10 / length(id)) {RAISES} id = ''.")),
        ("(length(id) / 2)", ("note", f"{TRIED} (length(id) / 2) raises an error.")),
        ("length(id)", None),
        ("length(name)", ("warning", "length(name) may be NULL where the contract allows it, such as name is NULL.")),
        ("COALESCE(length(name), 0)", ("note", f"{TRIED} COALESCE(length(name), 0) is NULL or raises an error.")),
    ],
)  # fmt: skip
def test_a_generated_column_is_reported_with_a_row_that_it_fails_for(column, expected):
    required = "NOT NULL" if expected and "NULL" in expected[1] else ""
    found = of_users(f"ADD theirs int GENERATED ALWAYS AS ({column}) STORED {required}").get("theirs")

    assert (found and (found[0], found[1][-len(expected[1]) :])) == expected


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("varchar(10) GENERATED ALWAYS AS (bio) STORED", ("warning", f"and its expression bio, stored as character varying(10), {RAISES} bio = repeat('a', 300).")),
        ("char(2) GENERATED ALWAYS AS (lower(email)) STORED", ("warning", f"and its expression lower(email), stored as character(2), {RAISES} email = repeat('a', 300).")),
        ("smallint GENERATED ALWAYS AS (length(bio) * 200) STORED", ("warning", f"and its expression (length(bio) * 200), stored as smallint, {RAISES} bio = repeat('a', 300).")),
        ("smallint GENERATED ALWAYS AS (length(id)) STORED", ("note", f"{TRIED} length(id) raises an error.")),
        ("numeric(3,1) GENERATED ALWAYS AS (length(id)) STORED", ("warning", f"and its expression length(id), stored as numeric(3,1), {RAISES} id = repeat('a', 300).")),
        ("theirs_short GENERATED ALWAYS AS (email) STORED", ("note", "is unmanaged and was not tried: a write fails where email raises an error.")),
        ("varchar(10) GENERATED ALWAYS AS (left(email, 3)) STORED", ("note", f"{TRIED} \"left\"(email, 3) raises an error.")),
        ("text GENERATED ALWAYS AS (lower(email)) STORED", None),
        ("varchar GENERATED ALWAYS AS (email) STORED", None),
        ("timestamptz GENERATED ALWAYS AS (\"createdAt\") STORED", None),
    ],
)  # fmt: skip
def test_a_generated_column_is_tried_in_its_type(column, expected):
    run("CREATE DOMAIN theirs_short AS text CHECK (length(VALUE) < 40)")
    found = of_users(f"ADD theirs {column}").get("theirs")

    assert (found and (found[0], found[1][-len(expected[1]) :])) == expected


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("(10 / length(id)) VIRTUAL", ("note", "(10 / length(id)) raises an error, such as where id = '': reading it fails, writes do not.")),
        ("(10 / length(id)) VIRTUAL NOT NULL", ("warning", f"and its expression (10 / length(id)) {RAISES} id = ''.")),
        ("(length(id) / 0) VIRTUAL NOT NULL", ("error", f"and its expression (length(id) / 0) {ALWAYS} id = 'a': writes fail.")),
        ("(length(id) / 2) VIRTUAL NOT NULL", ("note", f"{TRIED} (length(id) / 2) is NULL or raises an error.")),
        ("(length(id) / 2) VIRTUAL", None),
    ],
)  # fmt: skip
def test_a_virtual_column_fails_where_it_is_computed(column, expected):
    if connection.pg_version < 180000:
        pytest.skip("Virtual generated columns are new in PostgreSQL 18.")
    found = of_users(f"ADD theirs int GENERATED ALWAYS AS {column}").get("theirs")

    assert (found and (found[0], found[1][-len(expected[1]) :])) == expected


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("UNIQUE INDEX theirs ON users (md5(email))", ("note", SAME)),
        ("UNIQUE INDEX theirs ON users (md5(email), upper(name)) WHERE email <> ''", ("note", SAME)),
        ("UNIQUE INDEX theirs ON users (lower(email))", ("warning", f"{CONTRACT} email = 'a' beside email = 'A'.")),
        ("UNIQUE INDEX theirs ON users (substr(email, 2))", ("warning", f"{CONTRACT} email = 'a' beside email = ''.")),
        ("UNIQUE INDEX theirs ON users (lower(name))", ("warning", "refuses rows that the contract allows.")),
        ("INDEX theirs ON users ((10 / length(id)))", ("warning", f"(10 / length(id)) {RAISES} id = ''.")),
        ("INDEX theirs ON users ((10 / length(id))) WHERE id <> ''", ("note", f"{TRIED} (10 / length(id)), (id <> ''::text) raises an error.")),
        ("INDEX theirs ON users ((name ~ country))", ("note", f"{TRIED} (name ~ country) raises an error.")),
        ("INDEX theirs ON user_preferences ((\"preferredAirlines\" || ARRAY['x']))", ("warning", "exceeds 2,704 bytes after compression, the maximum size of an index entry.")),
        ("INDEX theirs ON users ((name ~ '^a'), (email || ' ' || id))", None),
        ("INDEX theirs ON users (name) WHERE 10 / length(id) > 1", ("warning", f"((10 / length(id)) > 1) {RAISES} id = '' and name = ''.")),
    ],
)  # fmt: skip
def test_an_index_is_reported_with_rows_that_it_rejects(index, expected):
    run(f"CREATE {index}")

    said = [(one.severity, one.message[-len(expected[1]) :] if expected else one.message) for one in verify(connection).findings if one.code == f"{'unique' if 'UNIQUE' in index else 'index'}.extra"]  # fmt: skip
    assert said == ([expected] if expected else [])


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("check", "codes"),
    [
        ("action_flag > -1", []),
        ("action_flag >= 0 AND action_flag < 32768", []),
        ("NOT action_flag < 0", []),
        ("action_flag > 0", ["check.different"]),
        ("action_flag >= -1", ["check.different"]),
    ],
)
def test_a_check_of_ours_rewritten_with_the_next_integer_is_the_same(check, codes):
    name = "django_admin_log_action_flag_check"
    run(f"ALTER TABLE django_admin_log DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({check})")

    findings = verify(connection).findings

    assert [one.code for one in findings] == codes
    for one in findings:
        run(one.cure.removeprefix(AGREE))
    assert verify(connection).findings == ()


def test_sample_rows_are_few_with_equal_and_different_values():
    columns = [Column("t", name, "text") for name in "abc"]

    rows = samples("((a <> b) AND (c <> 'x'::text) AND (length(c) < 3))", columns, {"c": "'fill'"}, stored=False)

    assert len(rows) == 96
    assert len({row["a"] for row in rows if row["a"] == row["b"]}) > 5
    assert {"'x'", "'xa'", "repeat('a', 2)", "repeat('a', 4)", "'fill'", "NULL", "''"} <= {row["c"] for row in rows}
    assert {row["c"] for row in samples("c", columns, {"c": "'fill'"}, stored=True)} == {"'fill'"}
    assert samples("a", [Column("t", "a", "theirs", nullable=False)], {}, stored=False) == []


def test_only_values_that_a_row_may_have_are_counted():
    kept = [({"ours": "1", "theirs": theirs}, value) for theirs, value in (("0", ("true",)), ("2", ("false",)), ("3", None))]

    assert judge(kept, ["theirs"], {}).refused == judge(kept, ["theirs"], {}).raised == ""
    assert judge(kept, ["theirs"], {"theirs": "0"}).refused == "ours = 1 and theirs = 0"
    assert judge([({"ours": "2"}, (None,))], [], {}).known is False
    same = [({"a": "1", "b": "1"}, ("x", "true")), ({"a": "1", "b": "2"}, ("x", "true"))]
    assert find_clash(same, [("a",)]).rows == ""
    assert find_clash(same, [("b",)]).rows == "a = 1 and b = 1 beside a = 1 and b = 2"
    assert find_clash([(row, (None, "true")) for row, _ in same], [("b",)]).known is False
