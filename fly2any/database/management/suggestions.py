"""Suggestions for mistyped values."""

from argparse import ArgumentError
from collections.abc import Iterable
from difflib import get_close_matches

from django.core.management.base import CommandParser


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a clause that names the nearest of `words`, "" if none is near."""
    near = get_close_matches(word, list(words), 1)
    return f" (did you mean {near[0]}?)" if near else ""


class Parser(CommandParser):
    """Suggests the closest choice for a mistyped one, as argparse can from Python 3.14 on."""

    def _check_value(self, action, value):
        try:
            super()._check_value(action, value)
        except ArgumentError as error:
            error.message += did_you_mean(str(value), map(str, action.choices))
            raise
