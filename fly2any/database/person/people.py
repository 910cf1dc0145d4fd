"""A person, by their e-mail address or id."""

from __future__ import annotations

from dataclasses import dataclass, replace

from django.db.models import BooleanField, F, Q, QuerySet, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Collate, Lower
from django.db.models.lookups import Exact

from ..errors import Refusal
from .patterns import same_address
from .tables import Table, Tables, read_tables
from .transactions import reading

# Compared in "C" too: in a Turkish locale, lower('I') is not i. In the database's locale, letters outside ASCII may be equal as well.
SAME_ADDRESS = (
    'pg_catalog.lower(email COLLATE pg_catalog."C") OPERATOR(pg_catalog.=) pg_catalog.lower(%(email)s COLLATE pg_catalog."C")'
    " OR pg_catalog.lower(email) OPERATOR(pg_catalog.=) pg_catalog.lower(%(email)s) ORDER BY id"
)
SAME_ID = "id OPERATOR(pg_catalog.=) %s"
SAME_LETTERS = "email OPERATOR(pg_catalog.~*) %s ORDER BY id"  # It reads all people.
# In a Turkish or Azeri locale, where I is not the upper case of i, no index serves a comparison that ignores the case of ASCII letters.
# PostgreSQL computes this while it plans, so that an index on UPPER(…) is used in any other locale.
HAS_OTHER_I = RawSQL("pg_catalog.lower('I') OPERATOR(pg_catalog.<>) 'i'", [], output_field=BooleanField())
MOST_SIMILAR = 20  # Candidates with the same address to PostgreSQL, which is_same_address() then checks.


@dataclass(frozen=True, slots=True)
class Person:
    """`has_twin`: another person's address differs only in case."""

    id: str
    email: str | None
    has_twin: bool = False

    @property
    def address_or_id(self) -> str:
        """The e-mail address without blanks around it, or the ID if there is none."""
        return (self.email or "").strip() or self.id


def is_same_address(one: str, other: str) -> bool:
    """Return whether two e-mail addresses differ at most in the case of ASCII letters.

    PostgreSQL's upper() and lower() also equate other letters: the dotless i and i, the Kelvin sign and k.
    """
    return one.encode().lower() == other.encode().lower()


def similar(field: str, email: str) -> Q:
    """Return a condition for the people whose address, in `field`, may be `email`; is_same_address() then checks them."""
    same = Exact(Lower(Collate(F(field), "C")), Lower(Collate(Value(email), "C")))
    return Q(**{f"{field}__iexact": email}) | (Q(HAS_OTHER_I) & Q(same))


def with_address(people: QuerySet, field: str, email: str) -> list:
    """Return those of `people`, MOST_SIMILAR at most, whose address in `field` is `email`, ignoring the case of ASCII letters."""
    return [one for one in people.filter(similar(field, email))[:MOST_SIMILAR] if is_same_address(getattr(one, field), email)]


def find(connection, email: str) -> Person:
    """Return the person with this e-mail address, ignoring the case of ASCII letters, or with this id.

    Raises Refusal if there is none, for staff, and if there are several, such as one with this id and another with this address. A
    person whose address is equal only by PostgreSQL's lower() is only a twin.
    """
    try:
        email.encode()
    except UnicodeEncodeError:
        raise Refusal("The e-mail address is not valid UTF-8: check the terminal's encoding.") from None
    if "\0" in email:
        raise Refusal("The e-mail address contains a NUL character: correct it.")
    with reading(connection), connection.cursor() as cursor:
        rows_sql = _rows_sql(connection)
        cursor.execute(rows_sql + SAME_ADDRESS, {"email": email})
        alike = cursor.fetchall()
        found = [row for row in alike if is_same_address(row[1], email)]
        cursor.execute(rows_sql + SAME_ID, [email])
        named = cursor.fetchall()
        if found and named and named[0][0] not in {row[0] for row in found}:
            raise Refusal(
                f"{email} is the ID of one person (e-mail address: {named[0][1] or 'none'}) and the e-mail address of another (ID:"
                f" {found[0][0]}): give an ID or address that only one of them has, or open the person in the admin."
            )
        if not (found or named):
            raise Refusal(f"No person has the e-mail address or the ID {email}: check the spelling, or search in the admin.")
        if len(found) > 1:
            exact = [row for row in found if row[1] == email]
            if len(exact) != 1:
                raise Refusal(
                    f"{len(found)} people have the e-mail address {email} in different spellings: give the exact spelling of one of them."
                )
            found = exact
        return _person(cursor, rows_sql, found[0], alike) if found else _person(cursor, rows_sql, named[0])


def find_by_id(connection, identity: str) -> Person:
    """Return the person with this id. Raises Refusal if there is none, and for staff."""
    with reading(connection), connection.cursor() as cursor:
        rows_sql = _rows_sql(connection)
        cursor.execute(rows_sql + SAME_ID, [identity])
        if (row := cursor.fetchone()) is None:
            raise Refusal(f"No person has the ID {identity}.")
        return _person(cursor, rows_sql, row)


def _rows_sql(connection) -> str:
    people = read_tables(connection)
    return _of(people.require(people.people.oid, "which holds the people"))


def _of(table: Table) -> str:
    return f'SELECT id, email, "isStaff" OR "isSuperuser" FROM {table.sql} WHERE '


def _person(cursor, rows_sql: str, row: tuple[str, str | None, bool], alike: list | None = None) -> Person:
    """Return the person in `row`; `alike` are the people with the address, as SAME_ADDRESS finds them. Raises Refusal for staff."""
    identity, address, is_staff = row
    if is_staff:
        raise Refusal(f"{address or identity} is a staff account: remove its staff status in the admin first.")
    return Person(identity, address, has_twin=_has_twin(cursor, rows_sql, identity, address, alike))


def read_again(cursor, tables: Tables, person: Person) -> Person:
    """Return the person, whose row may be deleted, with the twin that another session may have created meanwhile."""
    return replace(person, has_twin=_has_twin(cursor, _of(tables.people), person.id, person.email))


def _has_twin(cursor, rows_sql: str, identity: str, address: str | None, alike: list | None = None) -> bool:
    if address and not address.isascii():  # In the locale C, lower() changes ASCII letters only.
        cursor.execute(rows_sql + SAME_LETTERS, [same_address(address)])
        alike = cursor.fetchall()
    elif alike is None:
        cursor.execute(rows_sql + SAME_ADDRESS, {"email": address})
        alike = cursor.fetchall()
    return any(one[0] != identity for one in alike)
