"""A person, by their e-mail address or id."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import BooleanField, F, Q, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Collate, Lower
from django.db.models.lookups import Exact

from ..errors import Refusal
from .patterns import same_address
from .tables import read_tables
from .transactions import reading

# In the database's locale too, where other letters may be the same; in a Turkish one, I is not the upper case of i.
SAME_ADDRESS = (
    'pg_catalog.lower(email COLLATE pg_catalog."C") OPERATOR(pg_catalog.=) pg_catalog.lower(%(email)s COLLATE pg_catalog."C")'
    " OR pg_catalog.lower(email) OPERATOR(pg_catalog.=) pg_catalog.lower(%(email)s) ORDER BY id"
)
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
        people = read_tables(connection)
        table = people.require(people.people.oid, "which holds the people")
        rows_sql = f'SELECT id, email, "isStaff" OR "isSuperuser" FROM {table.sql} WHERE '
        cursor.execute(rows_sql + SAME_ADDRESS, {"email": email})
        similar = cursor.fetchall()
        found = [row for row in similar if is_same_address(row[1], email)]
        cursor.execute(rows_sql + "id OPERATOR(pg_catalog.=) %s", [email])
        named = cursor.fetchall()
        if found and named and named[0][0] not in {row[0] for row in found}:
            raise Refusal(
                f"{email} is the ID of one person (e-mail address: {named[0][1] or 'none'}) and the e-mail address of another (ID:"
                f" {found[0][0]}): give an ID or address that only one of them has, or open the person in the admin."
            )
        if not found:
            found = named
            cursor.execute(rows_sql + SAME_ADDRESS, {"email": found[0][1] if found else None})
            similar = cursor.fetchall()
        if found and found[0][1] and not found[0][1].isascii():  # In the locale C, lower() changes ASCII letters only.
            cursor.execute(rows_sql + SAME_LETTERS, [same_address(found[0][1])])
            similar = cursor.fetchall()
    if not found:
        raise Refusal(f"No person has the e-mail address or the ID {email}: check the spelling, or search in the admin.")
    if len(found) > 1:
        exact = [row for row in found if row[1] == email]
        if len(exact) != 1:
            raise Refusal(
                f"{len(found)} people have the e-mail address {email} in different spellings: give the exact spelling of one of them."
            )
        found = exact
    identity, address, is_staff = found[0]
    if is_staff:
        raise Refusal(f"{email} is a staff account: remove its staff status in the admin first.")
    return Person(identity, address, has_twin=len(similar) > 1)
