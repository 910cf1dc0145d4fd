"""Fixtures of the admin: enough rows to matter, signed-in staff, and the pages in the registry."""

import secrets
from contextlib import contextmanager
from datetime import date

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db import connection, models, transaction
from django.urls import reverse

from accounts.models import User
from fly2any.database.roles import roles_sql
from fly2any.database.seed import seed
from tests.conftest import made_once

DAY = date(2026, 5, 1)
USERS = 2_500  # 185,000 rows in all; 50,000 in the largest table.
ROLES = ("Support", "Operations", "Administrators", "superuser")
MODELS = [model for model in admin.site._registry if model._meta.app_label != "auth"]
CANARY = "canary-9f3a"
PASSWORD = "a-long-password-1"


def address(model, name="changelist", *arguments):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=arguments)


def secrets_of(model):
    return admin.site._registry[model].secrets


@pytest.fixture(scope="module")
def filled(django_db_setup, django_db_blocker):
    """A database with rows in all tables, analysed; its secrets are canaries."""
    with django_db_blocker.unblock():
        copied = made_once("filled", fill)
        with transaction.atomic(), connection.cursor() as cursor:
            empty()  # In the transaction of the COPY, so that FREEZE makes index-only scans cheap whatever other sessions see.
            cursor.execute(
                "SET LOCAL session_replication_role = replica"
            )  # The rows' foreign keys were checked when they were made.
            for model in MODELS:
                table = model._meta.db_table
                with cursor.copy(f'COPY "{table}" FROM STDIN (FORMAT binary, FREEZE)') as copy:
                    copy.write((copied / table).read_bytes())
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        yield
        empty()
        connection.close()


def fill(folder):
    """Copy the rows of `filled` to a file for each table; they are made in this worker's database and do not stay there."""
    seed(connection, users=USERS, seed=1, until=DAY)
    with connection.cursor() as cursor:
        for model in MODELS:
            for name in secrets_of(model):
                field = model._meta.get_field(name)
                cursor.execute(
                    f"""UPDATE "{model._meta.db_table}" SET "{field.column}" = '{CANARY}-{name}-' || id WHERE "{field.column}" IS NOT NULL"""
                )
        cursor.execute("UPDATE users SET password = %s || id", [f"{CANARY}-password-"])
        for model in MODELS:
            table = model._meta.db_table
            with cursor.copy(f'COPY "{table}" TO STDOUT (FORMAT binary)') as copy, (folder / table).open("wb") as file:
                file.writelines(copy)
    empty()


def empty():
    with connection.cursor() as cursor:
        tables = ", ".join(f'"{model._meta.db_table}"' for model in MODELS)
        cursor.execute(f"TRUNCATE {tables} CASCADE")


@pytest.fixture(scope="module")
def app_role(django_db_setup, django_db_blocker):
    """The role that the site and the admin run as in production, in the tests' database."""
    prefix = f"t{secrets.token_hex(4)}"
    with django_db_blocker.unblock():
        with connection.cursor() as cursor:
            cursor.execute(roles_sql(connection, connection.introspection.table_names(), prefix=prefix))
            # Tests use them by SET ROLE. A role that signs in would be one whose access dbstatus judges, in tests of other things.
            for role in ("migrate", "app", "read"):
                cursor.execute(f"ALTER ROLE {prefix}_{role} NOLOGIN")
        yield f"{prefix}_app"
        connection.close()  # Left by the previous test.
        with connection.cursor() as cursor:
            for end in ("migrate", "app", "read"):
                cursor.execute(f"REASSIGN OWNED BY {prefix}_{end} TO CURRENT_USER")
                cursor.execute(f"DROP OWNED BY {prefix}_{end}")
            cursor.execute(f"DROP ROLE {prefix}_migrate, {prefix}_app, {prefix}_read")


@contextmanager
def as_owner():
    """Run the block as the superuser, because the app's role may not change the access records."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        role = cursor.fetchone()[0]
        cursor.execute("SET LOCAL ROLE none")
        yield
        cursor.execute(f'SET LOCAL ROLE "{role}"')


@pytest.fixture
def member(client, db, app_role):
    """A function that signs a member of the staff in, by the name of their group; from then on the test runs as the app's role."""

    def sign_in(role="superuser"):
        user = User.objects.create(email=f"{role.lower()}@staff.example", is_staff=True, is_superuser=role == "superuser")
        if role != "superuser":
            user.groups.add(Group.objects.get(name=role))
        client.force_login(user)
        client.user = user
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL ROLE {app_role}")
        return client

    return sign_in


@pytest.fixture
def staff(client):
    """A signed-in superuser of the admin."""
    client.force_login(User.objects.create_superuser("staff@example.com"))
    return client


def lists_of(client, model):
    """Every URL of a model's list that one click reaches: filters, orders, pages and searches."""
    base = address(model)
    changelist = client.get(base).context["cl"]
    queries = {""}
    for spec in changelist.filter_specs:
        queries |= {choice["query_string"] for choice in spec.choices(changelist)}
    sortable = changelist.sortable_by
    queries |= {
        f"?o={sign}{place}" for place, name in enumerate(changelist.list_display) if name in sortable for sign in ("", "-")
    }
    if changelist.has_later:
        queries |= {changelist.later_page, changelist.last_page, changelist.exact_count}
    row = changelist.result_list[-1] if changelist.result_list else None
    if row is not None and admin.site._registry[model].search:
        queries |= {f"?q={row.pk}", "?q=nobody@nowhere.example", "?q=GRU-LIS", "?q=zzz"}
        if email := getattr(getattr(row, "user", row), "email", None):
            queries.add(f"?q={email}")
    for field in model._meta.local_fields:
        if row is not None and isinstance(field, models.ForeignKey):
            queries.add(f"?{field.name}={getattr(row, field.attname)}")
    return [base + query for query in sorted(queries)]


@pytest.fixture
def boss(settings):
    """A superuser, where a second factor is required."""
    settings.SECOND_FACTOR = True
    return User.objects.create_superuser("boss@example.com", PASSWORD)
