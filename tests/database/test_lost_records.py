"""Rows of django_migrations that are lost, although migrations that need them are recorded."""

import re
from dataclasses import replace

import pytest
from django.db import connection
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from fly2any.database.adoption import assess
from fly2any.database.errors import Refusal
from fly2any.database.migration.ledger import unrecorded, unrecorded_findings
from fly2any.database.migration.other_tools import refuse_tables_of_other_tools
from fly2any.database.report.collect import collect
from fly2any.database.schema import Column, read_catalog
from fly2any.database.schema import contract as contracts
from fly2any.database.verification import verify
from tests.database.test_writes import run

DROP = " Drop them only if another tool created them and nothing uses them: their data is lost."


def lose(*names):
    for name in names:
        app, _, migration = name.partition(".")
        assert MigrationRecorder(connection).migration_qs.filter(app=app, name=migration).delete()[0] == 1


@pytest.mark.django_db
def test_each_lost_record_is_one_finding_whose_cure_restores_it():
    """Also one of a squashed migration, one that every app needs, and one that changed a type, which no cure changes back."""
    squashed = "django_otp_webauthn.0001_squashed_0003_webauthncredential_hash_binary_to_hex"
    lost = [
        "auth.0002_alter_permission_name_max_length",
        "accounts.0001_initial",
        "travel.0001_initial",
        "accounts.0012_user_words",
        squashed,
    ]
    lose(*lost, "django_otp_webauthn.0002_timestamps")

    findings = verify(connection).findings

    assert {(one.code, one.where, one.is_sql, one.loses) for one in findings} == {
        ("migrations.out_of_order", name, True, "") for name in lost
    }
    assert next(one.message for one in findings if one.where == "travel.0001_initial") == (
        "The migration travel.0001_initial is not recorded as applied, although travel.0002_monitor_queue_index, which needs it, is:"
        " `migrate` refuses to run. Its objects exist: only its record is lost."
    )
    run(*(one.cure for one in findings))
    assert (verify(connection).findings, verify(connection).migrations.pending) == ((), ())


@pytest.mark.django_db
def test_a_lost_record_of_a_migration_that_a_recorded_one_replaces_is_found():
    """Django ignores the record of a squashed migration if some, but not all, of those that it replaces are recorded."""
    app, squashed = "django_otp_webauthn", "0001_squashed_0003_webauthncredential_hash_binary_to_hex"
    recorded = MigrationRecorder(connection).migration_qs.filter(app=app)
    before = sorted(recorded.values_list("name", flat=True))
    lose(f"{app}.0002_timestamps")

    (one,) = verify(connection).findings

    assert (one.code, one.where) == ("migrations.out_of_order", f"{app}.{squashed}")
    assert one.message == (
        f"The migration {app}.{squashed} counts as not applied without the record of {app}.0002_timestamps, although"
        f" {app}.0004_webauthnuserhandle, which needs it, is recorded as applied: `migrate` refuses to run."
        " Its objects exist: only its record is lost."
    )
    with pytest.raises(InconsistentMigrationHistory):
        MigrationLoader(connection).check_consistent_history(connection)
    run(one.cure)
    assert (sorted(recorded.values_list("name", flat=True)), verify(connection).findings) == (before, ())
    lose(*(f"{app}.{name}" for name in before if name[:4] < "0004" and name != squashed))
    MigrationLoader(connection).check_consistent_history(connection)
    assert (verify(connection).findings, verify(connection).migrations.pending) == ((), ())


@pytest.mark.django_db
@pytest.mark.parametrize(("lost", "damage", "others"), [
    ("accounts.0010_export_permission", "SELECT", set()),
    ("admin.0001_initial", "DROP TABLE django_admin_log", {"table.missing", "foreign_key.missing"}),
])  # fmt: skip
def test_a_record_of_a_migration_without_objects_is_restored_only_if_it_ran(lost, damage, others):
    lose(lost)
    run(damage)

    first, *rest = verify(connection).findings

    assert (first.code, first.where, first.is_sql) == ("migrations.out_of_order", lost, True)
    condition = f"un it only if {lost} ran here, which no object shows; otherwise delete from django_migrations the rows of the migrations that need it"
    assert (first.loses, first.cure.splitlines()[0]) == (f"r{condition}", f"-- R{condition}")
    assert {one.code for one in rest} == others


@pytest.mark.django_db
def test_a_database_with_a_lost_record_is_not_adopted():
    lose("travel.0001_initial")

    with pytest.raises(Refusal, match=re.escape("although travel.0002_monitor_queue_index, which needs it, is")):
        assess(connection)


@pytest.mark.django_db
def test_records_of_an_app_that_the_code_does_not_have_are_one_note_whose_cure_removes_them():
    for app, name in (("cms", "0001_initial"), ("cms", "0002_pages"), ("debug", "0001_initial"), ("travel", "0099_branch")):
        MigrationRecorder(connection).record_applied(app, name)

    warning, cms, debug = verify(connection).findings

    assert (warning.severity, warning.code, warning.where) == ("warning", "migrations.unknown", "travel.0099_branch")
    assert [(one.severity, one.code, one.where) for one in (cms, debug)] == [
        ("note", "migrations.unknown", "cms"), ("note", "migrations.unknown", "debug")
    ]  # fmt: skip
    assert cms.message == (
        "2 migrations of cms, an app that this code does not have, are recorded as applied: newer code ran here, the app was removed,"
        " or another project uses this database."
    )
    assert debug.message.startswith("1 migration of debug, an app that this code does not have, is recorded as applied: ")
    run(*(one.cure.partition("removed: ")[2] for one in (cms, debug)))
    assert verify(connection).findings == (warning,)
    assert collect(connection, verification=verify(connection), release=True).problems == ()


@pytest.mark.django_db
def test_a_migration_that_was_made_by_hand_is_recorded_after_those_that_it_needs():
    """Otherwise `migrate --fake` would record them too, and they would never run."""
    contract = contracts.load()
    active = next(one for one in contract.versions if isinstance(one.object, Column) and one.object.name == "active")
    seen, note = (
        replace(active, since="travel.0007_seen", object=replace(active.object, name=name)) for name in ("seen", "note")
    )
    contract = replace(contract, versions=(*contract.versions, seen, note))
    before = {"travel.0007_seen": ("travel.0005_alert_route_index", "travel.0006_correct")}
    migrations = replace(verify(connection).migrations, pending=("travel.0006_correct", "travel.0007_seen"), before=before)

    def cure(*statements):
        run(*statements)
        [one] = unrecorded_findings(unrecorded(contract, migrations, read_catalog(connection, schema="public")), ours=True)
        return one.message.partition(", but ")[2].partition(": ")[0], one.cure

    first = (
        "run `manage.py migrate travel 0006_correct` first, because --fake would record travel.0005_alert_route_index,"
        " travel.0006_correct too, without running them; then run `manage.py migrate --fake travel 0007_seen`"
    )
    cures = ", then the cures that `manage.py dbstatus` prints"
    assert cure("ALTER TABLE price_alerts ADD seen boolean NOT NULL DEFAULT true") == (
        "some of its objects already exist (price_alerts.seen)", f"If the record is lost, {first}{cures}.{DROP}"
    )  # fmt: skip
    assert cure("ALTER TABLE price_alerts ADD note varchar(9)") == (
        "its objects already exist (price_alerts.seen, price_alerts.note), but not as it defines price_alerts.note",
        f"If the record is lost, {first}{cures}.{DROP}",
    )
    assert (
        cure("ALTER TABLE price_alerts DROP note, ADD note boolean NOT NULL DEFAULT true")[1]
        == f"If the record is lost, {first}.{DROP}"
    )


@pytest.mark.django_db
def test_a_migration_whose_objects_exist_prevents_only_runs_that_would_apply_it():
    lose("sessions.0001_initial", "accounts.0012_user_words", "accounts.0013_drop_user_name_trigrams")

    assert verify(connection).migrations.before == {
        "sessions.0001_initial": (), "accounts.0012_user_words": (),
        "accounts.0013_drop_user_name_trigrams": ("accounts.0012_user_words",),
    }  # fmt: skip
    for app, name in (("engagement", None), ("accounts", None), ("accounts", "0011")):
        refuse_tables_of_other_tools(connection, app=app, name=name)
    for app, name in ((None, None), ("sessions", None), ("sessions", "0001"), ("sessions", "0002"), ("sessions", "zero")):
        with pytest.raises(Refusal, match=r"sessions\.0001_initial is not recorded, but its objects already exist"):
            refuse_tables_of_other_tools(connection, app=app, name=name)
