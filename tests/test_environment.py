"""The strict reader of the environment, and the pages that list what it reads."""

import os
import re
import runpy

import pytest
from django.core.exceptions import ImproperlyConfigured

from fly2any.environment import LIKE_A_URL, Env
from tests.conftest import PROJECT

PRODUCTION = {
    "POSTGRES_URL": "postgresql://u:secret@db.example.com/fly2any",
    "SECRET_KEY": "k" * 50,
    "ALLOWED_HOSTS": "admin.example.com",
}
# Read where the variable that the page documents is not set.
ALSO_READ = {
    "POSTGRES_URL": ["DATABASE_URL"],
    "POSTGRES_URL_NON_POOLING": ["DIRECT_URL", "DATABASE_URL_UNPOOLED", "DATABASE_UNPOOLED_URL"],
}


@pytest.fixture
def env(monkeypatch):
    """Return an Env whose only variables are those given."""

    def only(**variables):
        monkeypatch.setattr(Env, "ENVIRON", variables)
        return Env()

    return only


@pytest.fixture
def settings_of(monkeypatch):
    """Return the names that settings.py defines in a process with these variables alone."""

    def read(**variables):
        with monkeypatch.context() as patch:
            for name in documented().keys() | {name for name, value in os.environ.items() if LIKE_A_URL.match(value)}:
                patch.delenv(name, raising=False)
            patch.setattr(Env, "read_file", lambda self, path: None)
            for name, value in variables.items():
                patch.setenv(name, value)
            return runpy.run_path(str(PROJECT / "fly2any" / "settings.py"))

    return read


def documented():
    """Return {variable: default} as docs/reference/settings.md lists them."""
    page = (PROJECT / "docs" / "reference" / "settings.md").read_text()
    return dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", page, re.M))


def shown(default):
    """Return a default as the page shows it."""
    if default is Env.NOTSET:
        return "required"
    if isinstance(default, bool):
        return f"`{default}`".lower()
    if isinstance(default, list):
        default = ",".join(map(str, default))
    return f"`{str(default).removeprefix(f'{PROJECT}/')}`" if default not in (None, "", {}) else "none"


def test_the_settings_page_has_each_variable_with_its_default(settings_of):
    production, with_debug, development = (
        settings_of(**given)["env"].defaults for given in (PRODUCTION, PRODUCTION | {"DEBUG": "true"}, {})
    )
    read = {name: shown(default) for name, default in production.items()}
    for other, defaults in (("with DEBUG", with_debug), ("in development", development)):
        for name, default in production.items():
            if read[name] == shown(default) != shown(defaults.get(name, default)):
                read[name] += f"; {shown(defaults[name])} {other}"
    read["BACKUP_SIGNING_KEY"] = "`SECRET_KEY` and `SECRET_KEY_FALLBACKS`"  # Never shown by its value.
    read |= {other: read[name] for name, others in ALSO_READ.items() for other in others}

    assert documented() == read


def example():
    """Return the lines of .env.example that set a variable, without the comment sign."""
    lines = (PROJECT / ".env.example").read_text().splitlines()
    return [line.removeprefix("# ") for line in lines if re.match(r"(# )?[A-Z_]+=", line)]


def test_the_unedited_example_sets_nothing(env, tmp_path):
    reader = env()
    reader.read_file(PROJECT / ".env.example")

    assert reader.ENVIRON == {}


def test_the_example_has_each_variable_and_settings_accept_it(env, settings_of, tmp_path):
    file = tmp_path / ".env"
    file.write_text("\n".join(example()))
    reader = env()
    reader.read_file(file)
    given = dict(reader.ENVIRON)
    settings = settings_of(**given)

    assert given.keys() | {name for names in ALSO_READ.values() for name in names} == documented().keys()
    assert settings["DATABASES"]["default"]["HOST"] == "host"
    assert settings["DATABASES"]["replica"]["HOST"] == "standby"
    assert settings["RETENTION"] == {"days": {"price_history": 730, "sessions": 0}, "archive": "s3://bucket/folder"}


def test_an_example_that_is_a_default_is_the_default(env, settings_of, tmp_path):
    defaults = settings_of(**PRODUCTION)["env"].defaults
    examples = dict(line.split("=", 1) for line in example())
    own = {name for name in examples if defaults[name] not in (Env.NOTSET, None, "", {}, []) and name != "BACKUP_SIGNING_KEY"}

    assert {name: f"`{examples[name]}`" for name in own} == {name: shown(defaults[name]) for name in own}


@pytest.mark.parametrize(
    ("read", "sentence"),
    [
        (lambda env: env.bool("X"), "X is neither true nor false: set it to one of them."),
        (lambda env: env.int("X"), "X is not a number from 0 to 99999: correct it."),
        (lambda env: env.int("X", least=1, most=9), "X is not a number from 1 to 9: correct it."),
        (lambda env: env.list("X", cast=int, default=[1, 2], length=2), "X is not 2 numbers as in 1,2: correct it."),
        (lambda env: env.str("X", choices=["text", "json"]), "X is neither text nor json: set it to one of them."),
        (
            lambda env: env.token("X"),
            "X is not 16 or more printable ASCII characters: set it to the output of `openssl rand -hex 24`.",
        ),
        (
            lambda env: env.keys("X"),
            "X has a key of fewer than 32 characters, or one with a comma, which separates keys: use keys of"
            " `openssl rand -base64 48`. A key with a comma cannot be listed: its signatures are no longer accepted.",
        ),
        (
            lambda env: env.db("X"),
            "X has no scheme: write it as postgresql://user:password@host:5432/database?sslmode=require.",
        ),
    ],
)
def test_a_bad_value_is_reported_in_one_sentence_without_it(env, read, sentence):
    with pytest.raises(ImproperlyConfigured) as error:
        read(env(X="s3cret-Ù"))

    assert str(error.value) == sentence


@pytest.mark.parametrize("value", ["-1", "+1", "1_000", "1.0", "１", "100000", "1 2"])
def test_a_number_has_the_digits_0_to_9_only(env, value):
    with pytest.raises(ImproperlyConfigured):
        env(X=value).int("X")


def test_blanks_and_an_empty_variable_are_not_a_value(env):
    reader = env(X="  ", Y=" 7 ", Z=" 1, 2 ")

    assert ("X" in reader, reader.int("X", default=5), reader.int("Y"), reader.list("Z", cast=int, length=2)) == (
        False,
        5,
        7,
        [1, 2],
    )


def test_a_value_that_begins_with_a_dollar_is_taken_literally(env):
    assert env(X="$Y", Y="another").str("X") == "$Y"


def test_a_required_list_of_commas_alone_is_refused(env):
    with pytest.raises(ImproperlyConfigured, match=r"^X has nothing between its commas: correct or unset it\.$"):
        env(X=" , ").list("X")


KEYS = ["a" * 32, "b" * 64]


def test_keys_are_separated_by_commas(env):
    assert env(X=", ".join(KEYS)).keys("X") == KEYS


@pytest.mark.parametrize("variable", ["SECRET_KEY_FALLBACKS", "BACKUP_SIGNING_KEY"])
@pytest.mark.parametrize("value", ["correct horse, battery staple", f"{KEYS[0]},Q", ","])
def test_a_part_of_a_key_is_not_a_key(settings_of, variable, value):
    with pytest.raises(ImproperlyConfigured, match=rf"^{variable} has a key of fewer than 32 characters, or one with a comma"):
        settings_of(**PRODUCTION, **{variable: value})
