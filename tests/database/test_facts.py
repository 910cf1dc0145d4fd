"""Facts that models declare once, and that the admin, roles, export, erasure, retention and security read."""

import ast
import re
from pathlib import Path

import pytest
from django.apps import apps
from django.core.exceptions import AppRegistryNotReady

from accounts.models import VerificationToken
from fly2any.database import facts
from fly2any.database.facts import OnErasure
from fly2any.database.health.security_access import COLUMNS
from fly2any.database.person import without_foreign_key
from fly2any.database.retention.rules import RULES
from fly2any.database.roles import SECRETS
from fly2any.database.schema.contract import ADDED, MAY_BE_NULL
from fly2any.database.schema.protected_tables import APPEND_ONLY
from fly2any.database.sql import PEOPLE, RECORD
from fly2any.postgres.search_path import MARKING_TABLES
from travel.models import SavedSearch

DATABASE = Path(facts.__file__).parent


def strings_of(path):
    """The texts in a module, without its docstrings."""
    tree = ast.parse(path.read_text())
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, holders)]
    said = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def tables_in(text):
    """The tables of models that a text names: alone, in quotes, after an SQL keyword, or by a name that is not an English word."""
    labels = {app.label for app in apps.get_app_configs()}
    for name in {model._meta.db_table for model in apps.get_models(include_auto_created=True)}:
        patterns = [rf"(?:\b(?:FROM|JOIN|INTO|UPDATE|TABLE|ONLY|EXISTS) |['\"]){name}(?:['\"]|\b(?! [a-z]))"]
        patterns += [] if name in labels else [rf"^{name}$"]
        patterns += [rf"(?<![\w.]){name}\b"] if "_" in name else []
        if name in text and any(re.search(pattern, text) for pattern in patterns):
            yield name


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("users", {"users"}),
        ("accounts", set()),  # An app is called so too.
        ("SELECT 1 FROM users WHERE true", {"users"}),
        ('INSERT INTO "accounts" VALUES', {"accounts"}),
        ("c.relname = 'users' AND", {"users"}),
        ("the rows of price_history", {"price_history"}),
        ("This database holds users who are not demo data; --users", set()),
        ("sessions that wait", set()),
    ],
)
def test_a_table_name_is_detected_in_a_text(text, named):
    assert {*tables_in(text)} == named


def test_no_text_in_the_database_package_names_the_table_of_a_model():
    found = {
        (str(path.relative_to(DATABASE)), table)
        for path in DATABASE.rglob("*.py")
        for text in strings_of(path)
        for table in tables_in(text)
    }

    assert found == set()


def test_each_fact_is_read_where_it_matters():
    secret = {
        "users": ("password",),
        "accounts": ("refresh_token", "access_token", "id_token", "session_state"),
        "sessions": ("sessionToken",),
        "verification_tokens": ("token",),
        "user_sessions": ("token",),
        "push_subscriptions": ("endpoint", "p256dh", "auth"),
        "otp_totp_totpdevice": ("key",),
        "otp_static_statictoken": ("token",),
        "django_session": ("session_key", "session_data"),
    }
    removed = {"verification_tokens", "axes_accessattempt", "axes_accessfailurelog", "axes_accesslog"}
    cleared = {"django_admin_log", "fly2any_accesses"}

    assert SECRETS == facts.columns("secret_fields") == secret
    assert {*zip(COLUMNS["secret_tables"], COLUMNS["secret_columns"], strict=True)} == {*facts.places("secret_fields")}
    assert {*facts.erased(OnErasure.REMOVE)} == removed
    assert {*facts.erased(OnErasure.CLEAR)} == cleared
    # Texts of the admin's log have addresses and other names.
    assert {*facts.columns("address_fields")} == {"users", *removed, *cleared} - {"django_admin_log"}
    assert {*facts.tables("address_suffixes")} == {*facts.tables("texts_of_others")} == removed - {"verification_tokens"}
    assert {*without_foreign_key.WITHOUT_KEY} == {"user_activities", "django_session", *removed, *cleared}
    assert facts.person_columns(with_key=False) == {"user_activities": "userId"}
    assert (ADDED, MAY_BE_NULL) == ((("verification_tokens", "id"),), {("wishlist_items", "flightData"): "productType"})
    assert APPEND_ONLY == ("fly2any_accesses", "fly2any_notes")
    assert [*RULES] == [*sorted(facts.tables("retention"), key=lambda table: not RULES[table].archived)]


def test_several_tables_or_none_may_lack_a_primary_key_in_the_guide(monkeypatch):
    monkeypatch.setattr(SavedSearch, "key_beyond_guide", True, raising=False)
    several = facts.added_keys()
    monkeypatch.setattr(SavedSearch, "key_beyond_guide", False)
    monkeypatch.setattr(VerificationToken, "key_beyond_guide", False)

    assert (several, facts.added_keys()) == ((("verification_tokens", "id"), ("saved_searches", "id")), ())


def test_each_foreign_key_to_a_person_is_declared():
    people = facts.people_table()
    keys = {
        (model._meta.db_table, field.column)
        for app in ("administration", "accounts", "travel", "engagement", "ai_consultant")
        for model in apps.get_app_config(app).get_models()
        for field in model._meta.local_fields
        if field.related_model and field.related_model._meta.db_table == people
    }

    assert {*facts.person_columns().items()} == keys


def test_a_connection_knows_our_schema_by_the_tables_that_the_models_declare():
    """fly2any/postgres is below the models, so its search_path.py repeats the names."""
    assert (RECORD, PEOPLE) == MARKING_TABLES


def test_facts_are_not_read_before_all_apps_are_ready(monkeypatch):
    monkeypatch.setattr(apps, "ready", False)

    with pytest.raises(AppRegistryNotReady, match="not complete before all apps are ready"):
        facts.tables("retention")
