"""The search path in the startup options of a connection."""

import pytest

from fly2any.postgres.search_path import names_of, option, split


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ("", None)),
        ('-c search_path="app"', ("", '"app"')),
        ("-csearch_path=app", ("", "app")),
        ("--search-path=app", ("", "app")),
        ('-c search_path="My\\ One"', ("", '"My One"')),
        ("-c statement_timeout=5s -c search_path=app,public -c jit=off", ("-c statement_timeout=5s -c jit=off", "app,public")),
        ("-c search_path=a -c SEARCH_PATH=b", ("", "b")),
        ("-c application_name=x\\ search_path=y", ("-c application_name=x\\ search_path=y", None)),
        ("-c", ("-c", None)),
    ],
)
def test_the_search_path_is_taken_out_of_the_options(options, expected):
    assert split(options) == expected


def test_a_schema_of_any_name_is_one_option():
    name = 'a\t-c b\n\v"\\ c'

    assert split(f"-c jit=off {option(name)}") == ("-c jit=off", '"a\t-c b\n\v""\\ c"')


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ('"app"', ["app"]),
        ("App", ["app"]),
        ('"$user", public', ["$user", "public"]),
        ('"a,""b", c', ['a,"b', "c"]),
        ("", []),
    ],
)
def test_a_search_path_is_its_schemas(path, names):
    assert names_of(path) == names
