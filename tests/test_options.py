"""Suggestions for mistyped options, and the exit code of commands that fail."""

import argparse

import pytest
from django.core.management import get_commands, load_command_class

from tests.conftest import NO_SERVER, manage

COMMANDS = sorted(name for name, app in get_commands().items() if app.startswith("fly2any."))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_usage_line_has_each_name_that_an_error_uses(command):
    parser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
    usage = parser.format_usage()

    names = [argparse._get_action_name(action) for action in parser._actions if not action.option_strings]
    assert [name for name in names if name not in usage] == []


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["dbstatus", "--format", "josn"], "json"),
        (["dbmaintain", "wekly"], "weekly"),
        (["dbhealth", "lock"], "locks"),
        (["dbstatus", "--database", "defualt"], "default"),
    ],
)
def test_a_mistyped_value_gets_a_suggestion(words, meant):
    result = manage(*words, url=NO_SERVER)

    assert (result.returncode, result.stdout) == (2, "")
    assert f"(did you mean {meant}?)" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "words", [["migrate", "nosuch"], ["sqlmigrate", "nosuch", "0001"], ["squashmigrations", "nosuch", "0001"]]
)
def test_a_bad_app_label_exits_with_2_because_1_means_pending_migrations(database, words):
    result = manage(*words, url=database.url)

    assert (result.returncode, result.stderr) == (2, "CommandError: No installed app with label 'nosuch'.\n")
