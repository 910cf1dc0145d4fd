"""The comparison on plain values: no database."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fly2any.database.schema import Catalog, Column, Index, Table
from fly2any.database.schema.drift import compare
from tests.database.mutation import EXPECTED, at, kind

NAMED = (*EXPECTED.keys, *EXPECTED.checks, *EXPECTED.indexes, *EXPECTED.foreign_keys)


@settings(max_examples=30)
@given(st.sets(st.sampled_from(NAMED)))
def test_any_removed_object_is_reported_missing_and_nothing_else(taken):
    comparison = compare(EXPECTED, EXPECTED.where(lambda thing: thing not in taken))

    assert {(f.code, f.where) for f in comparison.findings} == {(f"{kind(thing)}.missing", at(thing)) for thing in taken}
    assert comparison.matched == frozenset(EXPECTED) - taken
    assert comparison.unmanaged == Catalog()


@settings(max_examples=30)
@given(st.sets(st.sampled_from(EXPECTED.columns)))
def test_any_removed_columns_are_reported_missing(taken):
    comparison = compare(EXPECTED, EXPECTED.where(lambda thing: thing not in taken))

    assert {(f.code, f.where) for f in comparison.findings} == {("column.missing", at(column)) for column in taken}


def test_objects_that_the_site_added_are_unmanaged_and_not_findings():
    added = Catalog(
        tables=(Table("trips"),),
        columns=(
            Column("users", "tripMatchCredits", "integer", nullable=False, default="0"),
            Column("users", "referralCode", "text"),
            Column("wishlist_items", "productType", "text", nullable=False, default="'flight'::text"),
        ),
        indexes=(Index("wishlist_items", "wishlist_items_userId_productType_idx", ("userId", "productType"), ("", "")),),
    )
    live = replace(
        EXPECTED,
        tables=EXPECTED.tables + added.tables,
        columns=tuple(replace(c, nullable=c.nullable or c.name == "flightData") for c in EXPECTED.columns) + added.columns,
        indexes=EXPECTED.indexes + added.indexes,
    )

    comparison = compare(EXPECTED, live)

    assert comparison.findings == ()
    assert comparison.unmanaged == added
    assert comparison.matched == frozenset(EXPECTED)


def test_a_foreign_key_to_a_table_of_another_schema_names_both():
    fk = next(one for one in EXPECTED.foreign_keys if at(one) == "sessions.sessions_userId_fkey")
    live = replace(fk, target='"far away".users', elsewhere=True)

    [finding] = compare(EXPECTED, replace(EXPECTED, foreign_keys=(*(set(EXPECTED.foreign_keys) - {fk}), live))).findings

    assert finding.code == "foreign_key.different"
    assert ' REFERENCES "far away".users ("id") ' in finding.message


@pytest.mark.parametrize(
    ("changes", "severity"),
    [
        ({"on_update": "NO ACTION"}, "warning"),
        ({"deferrable": True, "deferred": True}, "warning"),
        ({"on_delete": "NO ACTION", "on_update": "NO ACTION"}, "error"),
    ],
)
def test_a_foreign_key_that_accepts_and_deletes_the_same_rows_is_a_warning(changes, severity):
    fk = next(one for one in EXPECTED.foreign_keys if at(one) == "sessions.sessions_userId_fkey")
    others = {*EXPECTED.foreign_keys} - {fk}

    [finding] = compare(EXPECTED, replace(EXPECTED, foreign_keys=(*others, replace(fk, **changes)))).findings

    assert (finding.code, str(finding.severity)) == ("foreign_key.different", severity)
    assert finding.message.endswith("; the same rows are accepted and deleted.") == (severity == "warning")


def test_a_foreign_key_whose_checks_are_no_longer_deferred_is_an_error():
    fk = next(one for one in EXPECTED.foreign_keys if one.deferred)
    live = replace(fk, deferrable=False, deferred=False)

    [finding] = compare(EXPECTED, replace(EXPECTED, foreign_keys=(*({*EXPECTED.foreign_keys} - {fk}), live))).findings

    assert (finding.code, str(finding.severity)) == ("foreign_key.different", "error")


def test_a_dropped_column_is_not_mistaken_for_one_of_the_site():
    ours = next(column for column in EXPECTED.columns if at(column) == "wishlist_items.notes")
    live = EXPECTED.where(lambda thing: thing != ours)
    tables = tuple(
        Table("wishlist_items", dropped_columns=1) if table.name == "wishlist_items" else table for table in live.tables
    )
    theirs = Column("wishlist_items", "productId", "text")

    findings = compare(EXPECTED, replace(live, tables=tables, columns=(*live.columns, theirs))).findings

    assert [(finding.code, finding.where) for finding in findings] == [("column.missing", "wishlist_items.notes")]
