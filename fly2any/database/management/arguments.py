"""Arguments that several commands take."""

import argparse
import math

from django.db import DEFAULT_DB_ALIAS, connections

from fly2any.database.errors import Refusal
from fly2any.database.migration.advisory_locks import PATIENCE


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more; raise ArgumentTypeError for anything else."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError("give a number of seconds, 0 or more")
    return number


def add_database(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add `--database`; `purpose` completes the sentence "Which of DATABASES …"."""
    parser.add_argument(
        "--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections), help=f"Which of DATABASES {purpose}."
    )


def add_lock_wait(
    parser: argparse.ArgumentParser,
    waits: str = "the migration lock and, in total over all attempts, for the other locks of each step",
) -> None:
    """Add `--lock-wait`: how long the command `waits` for its advisory lock, and for others."""
    parser.add_argument(
        "--lock-wait",
        type=seconds,
        default=PATIENCE,
        metavar="SECONDS",
        help=f"How long to wait for {waits} (default: {PATIENCE}).",
    )


def add_consent(parser: argparse.ArgumentParser, doing: str) -> None:
    """Add `--yes` and `--without-backup`; `doing` is what the command does only with `--yes`."""
    parser.add_argument("--yes", action="store_true", help=f"{doing}.")
    parser.add_argument("--without-backup", action="store_true", help="Proceed even if there is no recent verified backup.")


def refuse_xml(format: str | None) -> None:
    """Raise Refusal for fixtures in XML: Django's deserializer strips the texts, and changes their line breaks."""
    if format == "xml":
        raise Refusal("Texts in XML lose blanks and line breaks when they are loaded: use the format json, jsonl or yaml.")
