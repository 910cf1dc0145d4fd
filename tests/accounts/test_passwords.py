import bcrypt
import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts import passwords
from accounts.models import User
from tests.conftest import NO_SERVER, manage


@pytest.mark.django_db
def test_a_password_set_here_is_stored_as_the_site_stores_it_and_signs_in():
    user = User.objects.create_user("ana@example.com", "correct horse")

    assert user.password.startswith("$2b$04$")
    assert len(user.password) == 60
    assert authenticate(username="ana@example.com", password="correct horse") == user
    assert authenticate(username="ana@example.com", password="wrong horse") is None


@pytest.mark.django_db
@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_a_hash_of_the_site_signs_in_and_is_never_rewritten(prefix):
    stored = passwords.make_hash("correct horse").replace("$2b$", prefix)
    User.objects.create_user("ana@example.com")
    User.objects.update(password=stored)

    assert authenticate(username="ana@example.com", password="correct horse") is not None
    assert User.objects.get().password == stored


@pytest.mark.django_db
@pytest.mark.parametrize("stored", [None, "", "!unusable", "pbkdf2_sha256$1$a$b", "$2b$10$short", "ключ"])
def test_nobody_signs_in_without_a_bcrypt_hash(stored):
    User.objects.create_user("ana@example.com")
    User.objects.update(password=stored)

    for password in ("", "!", stored or "", "correct horse"):
        assert authenticate(username="ana@example.com", password=password) is None


@pytest.mark.django_db
def test_a_missing_password_is_null_as_the_site_writes_it():
    user = User.objects.create_user("ana@example.com")

    assert user.password is None
    assert not user.has_usable_password()
    assert not user.check_password(None)


def test_a_sign_in_without_a_stored_password_takes_as_long_as_a_wrong_one(monkeypatch):
    asked = []
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, stored: asked.append(stored) or True)

    assert not passwords.verify("correct horse", None)
    assert asked == [passwords.NOBODYS_HASH.encode()]


def test_a_hash_has_12_rounds_also_that_of_an_account_without_a_password():
    code = "from accounts.passwords import NOBODYS_HASH, make_hash; print(make_hash('p')[:7], NOBODYS_HASH[:7])"

    result = manage("shell", "--no-imports", "--command", code, url=NO_SERVER)
    assert (result.stdout, result.stderr) == ("$2b$12$ $2b$12$\n", "")


def test_bcrypt_reads_72_bytes():
    stored = passwords.make_hash("é" * 36 + "and more")

    assert passwords.verify("é" * 36 + "and other things", stored)
    assert not passwords.verify("é" * 35, stored)


def test_a_password_that_bcrypt_would_truncate_is_refused():
    validate_password("a long password, " * 4)

    with pytest.raises(ValidationError, match="longer than 72 bytes"):
        validate_password("a long password, " * 5)


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=100).filter(lambda text: "\0" not in text))
def test_the_right_password_verifies_and_another_does_not(password):
    stored = passwords.make_hash(password)

    assert passwords.verify(password, stored)
    assert not passwords.verify("x" + password[:50], stored) or password.startswith("x" * 50)
