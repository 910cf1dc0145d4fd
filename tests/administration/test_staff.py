"""Who may sign in to the admin, changed from the command line."""

import shlex
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import CommandError, call_command
from django.db import connection, connections

from accounts.models import User
from fly2any.administration.staff import Appointment, Member, appoint, dismiss, read_staff
from fly2any.database.errors import Refusal
from tests.administration.conftest import address
from tests.administration.html_form import controls
from tests.conftest import manage
from tests.servers import open_transaction

pytestmark = pytest.mark.django_db
EMAIL = "ana@example.com"


def state(email=EMAIL):
    user = User.objects.get(email=email)
    return user.is_active, user.is_staff, user.is_superuser, sorted(group.name for group in user.groups.all())


def run(capsys, *words):
    call_command("dbstaff", *words)
    return capsys.readouterr().out


def test_a_new_person_gets_the_role_and_a_password_that_works(capsys):
    printed = run(capsys, EMAIL, "--role", "administrator")

    password = printed.split("New password: ")[1].split()[0]
    assert printed == (
        f"{EMAIL} was created with the role administrator."
        f" New password: {password} (shown only now; change it after the first sign-in).\n"
    )
    assert state() == (True, True, True, [])
    assert User.objects.get(email=EMAIL).check_password(password)


@pytest.mark.parametrize("verified", [None, datetime(2026, 5, 5, tzinfo=UTC)], ids=["unverified", "verified"])
def test_a_password_is_replaced_until_its_person_is_staff(capsys, verified):
    User.objects.create_user(EMAIL, "of whoever set it", name="Ana", is_active=False, email_verified=verified)

    printed = run(capsys, EMAIL.upper(), "--role", "support")

    password = printed.split("New password: ")[1].split()[0]
    assert printed == (
        f"{EMAIL} now has the role support. The old password was replaced, because others may have set it before the person became"
        f" staff. New password: {password} (shown only now; change it after the first sign-in).\n"
    )
    assert (state(), User.objects.get(email=EMAIL).check_password(password)) == ((True, True, False, ["Support"]), True)
    assert (
        run(capsys, EMAIL, "--role", "operations")
        == f"{EMAIL} now has the role operations. The password stays; `manage.py changepassword {EMAIL}` sets another.\n"
    )


def test_addresses_that_look_alike_are_not_confused():
    alike = "\u0131na@example.com"  # upper() of the dotless i is I.
    User.objects.create_user(alike, "of another person", email_verified=datetime(2026, 5, 5, tzinfo=UTC))

    done = appoint(connection, "ina@example.com", "administrator")

    assert done == Appointment("ina@example.com", True, done.password)
    assert state(alike) == (True, False, False, [])
    appoint(connection, EMAIL, "administrator")
    dismiss(connection, "INA@example.com")
    assert state("ina@example.com") == (True, False, False, [])


def test_the_sites_data_about_a_person_stays_bit_for_bit():
    User.objects.create_user(EMAIL)
    exactly = "1990-01-01 00:00:00.123456+00"
    with connection.cursor() as cursor:
        cursor.execute("""UPDATE users SET "dateOfBirth" = %s WHERE email = %s""", [exactly, EMAIL])
        for change in (lambda: appoint(connection, EMAIL, "support"), lambda: dismiss(connection, EMAIL)):
            change()
            cursor.execute("""SELECT "dateOfBirth"::text FROM users WHERE email = %s""", [EMAIL])
            assert cursor.fetchone() == (exactly,)


def test_a_user_who_signs_in_by_oauth_gets_a_password():
    User.objects.create_user(EMAIL)

    done = appoint(connection, EMAIL, "operations")

    assert done == Appointment(EMAIL, False, done.password)
    assert User.objects.get(email=EMAIL).check_password(done.password)


def test_a_role_replaces_another_and_other_groups_stay():
    appoint(connection, "other@example.com", "administrator")
    appoint(connection, EMAIL, "administrator")
    user = User.objects.get(email=EMAIL)
    user.groups.add(Group.objects.create(name="Night shift"), Group.objects.get(name="Administrators"))
    user.user_permissions.add(Permission.objects.get(codename="change_user"))

    appoint(connection, EMAIL, "operations")

    assert state() == (True, True, False, ["Night shift", "Operations"])
    assert list(user.user_permissions.all()) == []


def test_a_role_whose_group_was_renamed_is_refused():
    Group.objects.filter(name="Support").update(name="Helpers")

    with pytest.raises(Refusal) as refused:
        appoint(connection, "new@example.com", "support")

    assert str(refused.value) == (
        "There is no group Support, so nothing was changed: if it was renamed, rename it back; otherwise create it (Groups in the admin)."
    )
    assert not User.objects.filter(email="new@example.com").exists()


def test_a_demotion_does_not_leave_a_renamed_group_of_a_role():
    appoint(connection, "other@example.com", "administrator")
    appoint(connection, EMAIL, "administrator")
    User.objects.get(email=EMAIL).groups.add(Group.objects.get(name="Administrators"))
    Group.objects.filter(name="Administrators").update(name="Bosses")

    with pytest.raises(Refusal) as refused:
        appoint(connection, EMAIL, "operations")

    assert str(refused.value) == (
        f"There is no group Administrators, and {EMAIL} is in Bosses, which may be that group under another name, so nothing was"
        f" changed: rename it back or create Administrators (Groups in the admin), or remove {EMAIL} from all groups with --remove"
        " first."
    )
    assert state() == (True, True, True, ["Bosses"])

    dismiss(connection, EMAIL)
    appoint(connection, EMAIL, "operations")
    assert state() == (True, True, False, ["Operations"])


def test_a_removed_member_stays_a_user_of_the_site(capsys):
    appoint(connection, EMAIL, "support")

    assert run(capsys, EMAIL, "--remove") == f"{EMAIL} is no longer staff. The account on the site stays.\n"
    assert state() == (True, False, False, [])


def test_the_staff_is_listed_with_roles(capsys):
    assert run(capsys, "--list") == "No staff. Appoint an administrator with `manage.py dbstaff EMAIL --role administrator`.\n"
    appoint(connection, EMAIL, "administrator")
    appoint(connection, "bob@example.com", "support")
    User.objects.create_user("cy@example.com", is_staff=True, is_active=False)
    User.objects.create_user("of.the.site@example.com")

    assert read_staff(connection) == [
        Member(EMAIL, ("administrator",), True, None),
        Member("bob@example.com", ("support",), True, None),
        Member("cy@example.com", (), False, None),
    ]
    assert [line.split() for line in run(capsys).splitlines()] == [
        [EMAIL, "administrator", "never", "signed", "in"],
        ["bob@example.com", "support", "never", "signed", "in"],
        ["cy@example.com", "no", "role", "inactive"],
    ]


def test_addresses_that_differ_in_case_are_distinguished():
    for email in ("Ana@example.com", EMAIL):
        User.objects.create_user(email)

    assert appoint(connection, EMAIL, "support").email == EMAIL
    with pytest.raises(Refusal, match=r"^Several people have the address ANA@EXAMPLE\.COM in different spellings\. "):
        appoint(connection, "ANA@EXAMPLE.COM", "support")
    with pytest.raises(Refusal, match=r"^'ana' is not an e-mail address\.$"):
        appoint(connection, "ana", "support")
    with pytest.raises(Refusal, match=r"^nobody@example\.com is not staff: "):
        dismiss(connection, "nobody@example.com")


@pytest.mark.parametrize(
    "words", [[EMAIL], ["--role", "support"], [EMAIL, "--list"], [EMAIL, "--role", "x"], [EMAIL, "--remove", "--list"]]
)
def test_contradictory_options_are_refused(words):
    with pytest.raises(CommandError):
        call_command("dbstaff", *words)


def test_commands_for_an_existing_person_are_printed_as_a_shell_reads_them(capsys):
    email = "o'ana@example.com"
    User.objects.create_user(email)

    with pytest.raises(CommandError) as error:
        call_command("createsuperuser", "--noinput", "--email", email)

    quoted = shlex.quote(email)
    assert str(error.value) == (
        "Error: That e-mail is already taken."
        f" Run `manage.py dbstaff {quoted} --role administrator` to make this person an administrator."
    )
    appoint(connection, email, "support")
    assert f"`manage.py changepassword {quoted}` sets another." in run(capsys, email, "--role", "operations")


@pytest.mark.parametrize("change", [lambda: dismiss(connection, EMAIL), lambda: appoint(connection, EMAIL, "operations")])
def test_a_change_that_a_trigger_prevents_fails(change):
    appoint(connection, "other@example.com", "administrator")
    appoint(connection, EMAIL, "support")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            " CREATE TRIGGER keep BEFORE INSERT OR DELETE ON users_groups FOR EACH ROW EXECUTE FUNCTION keep()"
        )

    with pytest.raises(Refusal, match=r"^A trigger or a policy of the database prevents the change: nothing was changed\.$"):
        change()

    assert state() == (True, True, False, ["Support"])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [["--role", "administrator"], ["--remove"]])
def test_a_commit_whose_response_is_lost_is_reported_as_neither_done_nor_undone(capsys, change):
    User.objects.create_user("boss@example.com", "a", is_staff=True, is_superuser=True)
    User.objects.create_user(EMAIL, "b", is_staff=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER cut AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()"
        )
    try:
        with pytest.raises(
            Refusal, match=rf"^The connection was lost during the commit, so {EMAIL} may or may not have been changed:"
        ):
            run(capsys, EMAIL, *change)
    finally:
        connection.close()
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION cut CASCADE")

    assert capsys.readouterr().out == ""


@pytest.mark.django_db(transaction=True)
def test_changes_by_the_site_while_a_password_is_typed_stay(monkeypatch):
    user = User.objects.create_user(EMAIL, "the old password", bio="x")
    typed = iter(["Correct horse 1", "another", "short", "short", "Correct horse 1", "Correct horse 1"])

    def type_in(prompt=""):
        with connections["default"].copy().cursor() as site:
            site.execute(
                """UPDATE users SET bio = 'new', "dateOfBirth" = '1990-01-01 00:00:00.123456+00' WHERE id = %s""", [user.pk]
            )
            site.connection.close()
        return next(typed)

    monkeypatch.setattr("getpass.getpass", type_in)
    out, err = StringIO(), StringIO()
    call_command("changepassword", EMAIL, stdout=out, stderr=err)

    assert out.getvalue() == f"Changing the password of {EMAIL}.\nThe password of {EMAIL} was changed.\n"
    assert err.getvalue().splitlines()[0] == "The two password fields didn’t match."
    after = User.objects.get(pk=user.pk)
    assert (after.bio, after.check_password("Correct horse 1")) == ("new", True)
    with connection.cursor() as cursor:
        cursor.execute("""SELECT "dateOfBirth"::text FROM users""")
        assert cursor.fetchall() == [("1990-01-01 00:00:00.123456+00",)]
    with pytest.raises(CommandError, match=r"^No person has the e-mail address nobody@example\.com: check the spelling\.$"):
        call_command("changepassword", "nobody@example.com")


@pytest.mark.slow
def test_becoming_staff_in_the_admin_removes_the_password(member):
    client = member()
    user = User.objects.create_user(EMAIL, "of whoever set it", email_verified=datetime(2026, 5, 5, tzinfo=UTC))
    page = address(User, "change", user.pk)

    told = client.post(page, {**controls(client.get(page), "user_form"), "is_staff": "on"}, follow=True).content.decode()
    removed = User.objects.get(pk=user.pk).password
    again = client.post(page, {**controls(client.get(page), "user_form"), "is_superuser": "on"}, follow=True).content.decode()

    assert (state(), removed) == ((True, True, True, []), None)
    sentence = f"The password of {EMAIL} was removed, because others may have set it before this person became staff."
    assert (sentence in told, sentence in again) == (True, False)


@pytest.mark.parametrize("by", ["dbstaff", "the admin"])
def test_nobody_becomes_staff_with_a_password_that_a_trigger_keeps(member, by):
    user = User.objects.create_user(EMAIL, "of whoever set it")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN NEW.password := OLD.password; RETURN NEW; END $$;"
            "CREATE TRIGGER keep BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION keep()"
        )

    client = member()
    if by == "dbstaff":
        with pytest.raises(
            Refusal, match=r"^A trigger or a policy of the database prevents the change: nothing was changed\.$"
        ):
            appoint(connection, EMAIL, "support")
    else:
        page = address(User, "change", user.pk)
        said = client.post(page, {**controls(client.get(page), "user_form"), "is_staff": "on"}).content.decode()
        assert "A trigger or a policy of the database prevents the change: nothing was changed." in said

    assert state() == (True, False, False, [])


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ("SELECT FROM users WHERE email = 'ana@example.com' FOR UPDATE", ["ana@example.com", "--role", "support"]),
        ("SELECT FROM users WHERE email = 'ana@example.com' FOR UPDATE", ["ana@example.com", "--remove"]),
        ("LOCK TABLE users_groups", ["--list"]),
    ],
)
def test_no_command_waits_without_limit_for_a_lock_while_it_holds_the_administrators(migrated, lock, words):
    insert = "INSERT INTO users (id, email, \"isStaff\", \"updatedAt\") VALUES ('ana', 'ana@example.com', true, now())"
    migrated.execute(insert)
    with open_transaction(migrated, lock):
        result = manage("dbstaff", *words, url=migrated.url)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Another transaction holds a lock")
