"""A person's rights: everything that is held about somebody, and its erasure (GDPR, articles 15, 17 and 20)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from django.db import transaction
from psycopg import sql

from .catalog import quote, read_catalog
from .diagnosis import Refusal
from .roles import SECRETS
from .server import read_schema
from .status import snapshot

FORMAT = 1
PEOPLE = "users"
# Tables that know a person without a foreign key: by which column, and whether it holds the id or the e-mail address.
WITHOUT_KEY = {
    "user_activities": ("userId", "id"),
    "verification_tokens": ("identifier", "email"),
    "axes_accessattempt": ("username", "email"),
    "axes_accessfailurelog": ("username", "email"),
    "axes_accesslog": ("username", "email"),
    "fly2any_accesses": ("person_id", "id"),
}
KEPT = ("fly2any_accesses",)  # Who of the staff looked at them: it must outlive the person, and has no more than the id.
# The admin's log names rows by what they are called: a person by their address.
LOG_SQL = """
    FROM django_admin_log AS l JOIN django_content_type AS c ON c.id = l.content_type_id
    WHERE c.app_label = 'accounts' AND c.model = 'user' AND l.object_id = %s
"""


@dataclass(frozen=True, slots=True)
class Person:
    id: str
    email: str | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an erasure removed: rows by table, and what stays, and why."""

    at: datetime
    person: str  # The id: nothing else of them is in it.
    removed: dict[str, int]
    unnamed: int  # Entries of the admin's log that no longer name them.
    kept: dict[str, int]

    @property
    def rows(self) -> int:
        return sum(self.removed.values())

    def as_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, default=datetime.isoformat)


def find(connection, email: str) -> Person:
    """Return the person with this e-mail address, in upper or lower case; raise Refusal for nobody, several, and for staff."""
    if "\0" in email:
        raise Refusal("An e-mail address has no NUL: correct it.")
    with connection.cursor() as cursor:
        cursor.execute(
            f'SELECT id, email, "isStaff" OR "isSuperuser" FROM {PEOPLE} WHERE lower(email) = lower(%s) ORDER BY id', [email]
        )
        found = cursor.fetchall()
    if not found:
        raise Refusal(f"Nobody has the e-mail address {email}: correct it, or look in the admin.")
    if len(found) > 1:
        exact = [row for row in found if row[1] == email]
        if len(exact) != 1:
            raise Refusal(
                f"{len(found)} people have the e-mail address {email}, written differently: give it as one of them has it."
            )
        found = exact
    identity, address, is_staff = found[0]
    if is_staff:
        raise Refusal(f"{email} is one of the staff: take that from them in the admin first.")
    return Person(identity, address)


def _conditions(connection, person: Person) -> dict[str, sql.Composed]:
    """Return for each table that holds rows of the person the condition for them, parents before children."""
    schema = read_schema(connection)
    catalog = read_catalog(connection, schema=schema)
    there = {table.name for table in catalog.tables}
    if PEOPLE not in there:
        raise Refusal(
            f"The table {PEOPLE} is not in the schema {schema}, where our migrations are recorded: correct ?schema= in POSTGRES_URL."
        )
    found = {PEOPLE: sql.SQL("id = {}").format(sql.Literal(person.id))}
    for table, (column, what) in WITHOUT_KEY.items():
        value = person.id if what == "id" else person.email
        if table in there and value is not None:
            same = sql.SQL("lower({}) = lower({})" if what == "email" else "{} = {}")
            found[table] = same.format(sql.Identifier(column), sql.Literal(value))
    todo = list(found)
    while todo:
        parent = todo.pop(0)
        for key in catalog.foreign_keys:
            if key.target != parent or key.table == parent or len(key.columns) != 1:
                continue
            if parent == PEOPLE:  # By the id itself: so that a row that stayed behind is seen when the person is gone.
                theirs = sql.SQL("{} = {}").format(sql.Identifier(key.columns[0]), sql.Literal(person.id))
            else:
                names = map(sql.Identifier, (key.columns[0], key.target_columns[0], parent))
                theirs = sql.SQL("{} IN (SELECT {} FROM {} WHERE {})").format(*names, found[parent])
            if key.table in found:
                found[key.table] = sql.SQL("{} OR {}").format(found[key.table], theirs)
            else:
                todo.append(key.table)
                found[key.table] = theirs
    return found


def export(connection, person: Person) -> Iterator[str]:
    """Yield everything that is held about the person as one JSON text, of one snapshot; secrets are left out."""
    with snapshot(connection):
        conditions = _conditions(connection, person)
        head = {"format": FORMAT, "at": datetime.now(UTC).isoformat(), "person": asdict(person)}
        yield json.dumps(head, ensure_ascii=False)[:-1] + ', "tables": {'
        for place, (table, condition) in enumerate(conditions.items()):
            yield f"{',' if place else ''}\n{json.dumps(table)}: ["
            hidden = sql.Literal(list(SECRETS.get(table, ())))
            query = sql.SQL("SELECT (to_jsonb(t) - {}::text[])::text FROM {} AS t WHERE {}").format(
                hidden, sql.Identifier(table), condition
            )
            with connection.chunked_cursor() as cursor:
                cursor.execute(query)
                first = True
                while rows := cursor.fetchmany(1000):
                    yield ("" if first else ",\n") + ",\n".join(row for (row,) in rows)
                    first = False
            yield "]"
        yield "\n}}\n"


def count(connection, person: Person) -> dict[str, int]:
    """Return how many rows of each table are of the person, where there are any."""
    return _count(connection, _conditions(connection, person))


def _count(connection, conditions: dict[str, sql.Composed]) -> dict[str, int]:
    counts = {}
    with connection.cursor() as cursor:
        for table, condition in conditions.items():
            cursor.execute(sql.SQL("SELECT count(*) FROM {} WHERE {}").format(sql.Identifier(table), condition))
            if number := cursor.fetchone()[0]:
                counts[table] = number
    return counts


def erase(connection, person: Person) -> Certificate:
    """Remove the person and every row of theirs, in one transaction, and return what was removed."""
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT FROM {PEOPLE} WHERE id = %s FOR UPDATE", [person.id]
        )  # What the site adds meanwhile waits, and fails.
        conditions = _conditions(connection, person)
        counts = _count(connection, conditions)
        for table in WITHOUT_KEY:
            if table in conditions and table not in KEPT:
                cursor.execute(sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(table), conditions[table]))
        cursor.execute(f"UPDATE django_admin_log SET object_repr = '(erased)' WHERE id IN (SELECT l.id {LOG_SQL})", [person.id])
        unnamed = cursor.rowcount
        cursor.execute(f"DELETE FROM {quote(PEOPLE)} WHERE id = %s", [person.id])
        left = {table: number for table, number in _count(connection, conditions).items() if table not in KEPT}
        if left:
            raise Refusal(
                f"Rows of the person would stay in {', '.join(left)}: nothing was changed; `manage.py dbstatus` shows which foreign key does not cascade."
            )
    removed = {table: number for table, number in counts.items() if table not in KEPT}
    kept = {table: number for table, number in counts.items() if table in KEPT}
    return Certificate(datetime.now(UTC), person.id, removed, unnamed, kept)


def as_rows(counts: dict[str, int]) -> list[str]:
    """Return a line for each table."""
    return [f"  {table:<40}{number:>12,}" for table, number in counts.items()]
