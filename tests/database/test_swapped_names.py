"""Constraints and indexes that exist under other names, while other objects have theirs."""

import pytest

from tests.database.test_moved_tables import drift
from tests.database.test_writes import run

SWAPPED = {
    "a constraint and an index": (
        "ALTER INDEX users_email_key RENAME TO moved; ALTER INDEX users_staff_idx RENAME TO users_email_key; ALTER INDEX moved RENAME TO users_staff_idx",
        ["users.users_email_key", "users.users_staff_idx"],
    ),
    "constraints of two tables": (
        'ALTER INDEX users_email_key RENAME TO moved; ALTER INDEX price_history_pkey RENAME TO users_email_key; ALTER INDEX moved RENAME TO price_history_pkey',
        ["price_history.price_history_pkey", "users.users_email_key"],
    ),
    "indexes of two tables": (
        "ALTER INDEX users_staff_idx RENAME TO moved; ALTER INDEX price_alerts_active_idx RENAME TO users_staff_idx; ALTER INDEX moved RENAME TO price_alerts_active_idx",
        ["price_alerts.price_alerts_active_idx", "users.users_staff_idx"],
    ),
    "three objects": (
        "ALTER INDEX users_email_key RENAME TO moved; ALTER INDEX price_history_pkey RENAME TO users_email_key;"
        " ALTER INDEX users_staff_idx RENAME TO price_history_pkey; ALTER INDEX moved RENAME TO users_staff_idx",
        ["price_history.price_history_pkey", "users.users_email_key", "users.users_staff_idx"],
    ),
    "an unmanaged index": (
        "ALTER INDEX users_email_key RENAME TO moved; CREATE INDEX users_email_key ON users (id)", ["users.users_email_key"],
    ),
    "a sequence": ("ALTER INDEX users_email_key RENAME TO moved; CREATE SEQUENCE users_email_key", ["users.users_email_key"]),
    "a table": ("ALTER INDEX users_email_key RENAME TO moved; CREATE TABLE users_email_key ()", ["users.users_email_key"]),
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize("case", SWAPPED)
def test_an_object_gets_its_name_back_from_what_has_it(case):
    damage, renamed = SWAPPED[case]
    run(damage)

    findings = drift()

    assert [(one.where, one.code.partition(".")[2]) for one in findings] == [(where, "renamed") for where in renamed]
    asked = {
        "a sequence": ["it renames the sequence users_email_key, which another program may use: ask its owner first"],
        "a table": ["it renames the table users_email_key, which another program may use: ask its owner first"],
    }
    assert [one.loses for one in findings] == asked.get(case, [""] * len(findings))
    for finding in findings:
        run(finding.cure)
    assert drift() == ()


@pytest.mark.django_db
def test_no_script_renames_what_another_program_may_call_by_its_name():
    run("ALTER TABLE wishlist_items DROP CONSTRAINT wishlist_items_pkey; CREATE SEQUENCE wishlist_items_pkey")
    run('ALTER TABLE price_alerts DROP CONSTRAINT price_alerts_pkey; CREATE INDEX price_alerts_pkey ON users ("isStaff")')
    run("ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE; CREATE VIEW users_pkey AS SELECT 1")
    run("DROP TABLE user_activities; CREATE TYPE user_activities AS ENUM ('a')")

    findings = drift()

    why = {
        one.where: one.loses
        for one in findings
        if one.where in {"user_activities", "sessions.sessions_userId_fkey"} or one.code == "primary_key.missing"
    }
    of = "which another program may use: ask its owner first"
    assert why == {
        "user_activities": f"it renames the type user_activities, {of}",
        "wishlist_items.wishlist_items_pkey": f"it renames the sequence wishlist_items_pkey, {of}",
        "price_alerts.price_alerts_pkey": "",
        "users.users_pkey": f"it renames the view users_pkey, {of}",
        "sessions.sessions_userId_fkey": "it needs the key users.users_pkey first",
    }
    for finding in findings:
        run(finding.cure)
    assert drift() == ()
