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
    for finding in findings:
        run(finding.cure)
    assert drift() == ()
