"""The page of each command ends with its output, which this compares line by line. PRINT_PAGES=1 writes it into the pages."""

import dataclasses
import os
import re

import pytest

from tests import prisma
from tests.conftest import PROJECT, manage
from tests.servers import SUPERUSER, Database

HEADING = "## As printed"
LONGEST, WHOLE = 30, "dbstatus"  # Lines of one command, but for the page that shows all of it.
RETENTION = "price_history=30,ai_conversations=30"
# In this order, on one database that begins empty; a page may have several.
STEPS = (
    ("migrate", "migrate accounts 0001"),
    ("migrate", "migrate -v0"),
    ("migrate", "migrate"),
    ("dbcontract", "dbcontract --check"),
    ("dbseed", "dbseed --production --users 40 --seed 1 --until 2026-05-01"),
    ("dbhealth", "dbhealth connections locks indexes tables"),
    ("dbbackup", "dbbackup --verify"),
    ("dbbackup", "dbbackup --list"),
    ("dbstatus", "dbstatus --security"),
    ("dbrestore", "dbrestore latest"),
    ("dbmaintain", "dbmaintain weekly --dry-run"),
    ("dbmaintain", "dbmaintain weekly"),
    ("dbmaintain", "dbmaintain archives"),
    ("dbperson", "dbperson erase ana.silva@example.com"),
    ("dbperson", "dbperson erase ana.silva@example.com --yes"),
    ("dbroles", "dbroles"),
    ("dbreset", "dbreset"),
)
ANA = "INSERT INTO users (id, email, \"updatedAt\") VALUES ('clx0', 'ana.silva@example.com', now()); INSERT INTO user_activities (id, \"userId\", \"eventType\") VALUES ('a', 'clx0', 'search')"


def printed(database, other, folder):
    """What each step prints, as (page, command, lines)."""
    places = {"BACKUP_LOCATION": str(folder / "backups"), "ARCHIVE_LOCATION": str(folder / "archive"), "RETENTION": RETENTION}
    for page, command in (*STEPS, ("dbadopt", "dbadopt")):
        if command.startswith("dbperson") and "--yes" not in command:
            database.execute(ANA)
        target = other if page == "dbadopt" else database
        result = manage(*command.split(), url=target.url, LOCK_TIMEOUT="", **places)
        assert result.returncode in (0, 4), result.stderr
        text = named(result.stderr + result.stdout, target.name)
        for name, place in places.items():
            text = text.replace(
                place,
                {"BACKUP_LOCATION": "/var/backups/fly2any", "ARCHIVE_LOCATION": "/var/backups/fly2any-archive"}.get(
                    name, place
                ),
            )
        lines = text.rstrip().splitlines()
        yield page, command, lines if len(lines) <= LONGEST or page == WHOLE else [*lines[:LONGEST], "…"]


def named(text, name):
    """A text with the usual name of the database in place of its own, and the columns after it where they were."""

    def renamed(found):
        usual, blank = f"fly2any{found[1]}", found[2]
        return usual.ljust(len(found[0])) if len(blank) > 1 else usual + blank

    return re.sub(rf"{re.escape(name)}(\S*)( *)", renamed, text)


def shape(line):
    """A line without parts that vary: numbers, units, times, names of servers and machines."""
    line = re.sub(r"\b\w+@[\w.-]+", "person@host", line)
    line = re.sub(r"code \S+", "code #", line)
    line = re.sub(r" \(Debian[^)]*\)", "", line)
    line = re.sub(r"^  \w+( +[\d.]+ \wB, ~)", r"  table\1", line)  # The largest may differ between versions.
    line = re.sub(r"role \w+|, owner of", lambda found: "role r" if found[0].startswith("role") else found[0], line)
    line = re.sub(r"[+-]?\d[\d,.:]*(?:[TZ]?\d[\d.:-]*)*Z?\b", "#", line)
    line = re.sub(r"#(-#)+", "#", line)
    return re.sub(r"# ?(?:ms|min|s|h|days|B|kB|MB|GB|rows?)\b", "# u", " ".join(line.split()))


@pytest.mark.slow
def test_each_page_shows_what_its_commands_print(own_server, tmp_path):
    """On a server without the roles of other tests, which `dbstatus --security` and `dbhealth` show."""
    server, pages = own_server(listen_addresses=""), {}
    server.execute("CREATE DATABASE fly2any_other")
    database = Database(host=str(server.home / "data"), port=str(server.port), user=SUPERUSER, password="", name="fly2any")
    other = dataclasses.replace(database, name="fly2any_other")
    other.execute(prisma.exact())
    for page, command, lines in printed(database, other, tmp_path):
        pages.setdefault(page, []).append("\n".join([f"$ python manage.py {command}", *lines]))
    shown = {}
    for page, blocks in pages.items():
        path = PROJECT / "docs" / "reference" / f"{page}.md"
        text = path.read_text()
        if os.environ.get("PRINT_PAGES"):
            path.write_text(
                text.partition(HEADING)[0].rstrip() + f"\n\n{HEADING}\n\n```console\n" + "\n\n".join(blocks) + "\n```\n"
            )
        shown[page] = path.read_text().partition(HEADING)[2].strip().removeprefix("```console\n").removesuffix("\n```")

    assert {page: [shape(line) for line in text.splitlines()] for page, text in shown.items()} == {
        page: [shape(line) for line in "\n\n".join(blocks).splitlines()] for page, blocks in pages.items()
    }
