"""The three roles of the database and their grants, as SQL to read and run; current users of the tables keep their access.

The role that only reads may select no secret column. administration/roles.py defines the roles of the staff, and
schema/protected_tables.py revokes what `fly2any_app` may not do on ledgers, also after each `migrate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from . import facts
from .errors import Refusal
from .schema.contract import load
from .schema.objects import Column
from .schema.protected_tables import APPEND_ONLY, LEDGERS, PRISMAS_LEDGER
from .server import read_schema
from .sql import catalogue, quote
from .trusted_roles import TRUSTED_SQL

SECRETS = facts.columns("secret_fields")  # The secret columns, which the role PREFIX_read cannot read.

TABLES_SQL = """
    SELECT c.relname AS name,
           (SELECT array_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
           pg_catalog.pg_get_userbyid(c.relowner)::text AS owner
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND c.relname = ANY (%(tables)s)
    ORDER BY c.relname COLLATE "C"
"""
# The other tables, views and sequences of the database. Objects of extensions are excluded, and the sequence of a column belongs
# to the owner of its table.
RELATIONS_SQL = """
    SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind, pg_catalog.pg_get_userbyid(c.relowner) AS owner,
           pg_catalog.pg_has_role(c.relowner, 'USAGE') AS is_ours_to_grant, c.relrowsecurity AS is_filtered,
           COALESCE(o.relname, c.relname) = ANY (%(tables)s) AND n.nspname = %(schema)s AS is_known,
           COALESCE(o.relname, '') = ANY (%(ledgers)s) AS is_of_ledger
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_depend AS d ON c.relkind = 'S' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
    LEFT JOIN pg_catalog.pg_class AS o ON o.oid = d.refobjid
    WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                      WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e')
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
SCHEMAS_SQL = """
    SELECT n.nspname AS schema, pg_catalog.pg_get_userbyid(n.nspowner) AS owner, pg_catalog.pg_has_role(n.nspowner, 'USAGE') AS is_ours_to_grant
    FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname NOT IN ('information_schema', %(schema)s) AND n.nspname !~ '^pg_'
    ORDER BY n.nspname COLLATE "C"
"""
# The owners of our tables, and the role that runs the SQL if it is not a superuser: it must be a member of the new owner.
OWNERS_SQL = """
    SELECT r.rolname, COALESCE(t.owns, false)
    FROM pg_catalog.pg_roles AS r LEFT JOIN (
        SELECT DISTINCT c.relowner, true AS owns
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND c.relname = ANY (%(tables)s)) AS t ON t.relowner = r.oid
    WHERE (t.owns OR r.rolname = current_user AND r.rolcreaterole) AND NOT r.rolsuper AND r.rolname <> ALL (%(roles)s)
    ORDER BY r.rolname
"""
# A table of ours whose owner is not trusted: the owners of the tables become members of the role that owns them all.
UNTRUSTED_OWNER_SQL = f"""
    SELECT c.relname::text, pg_catalog.pg_get_userbyid(c.relowner)::text
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND c.relname = ANY (%(tables)s) AND NOT {TRUSTED_SQL}
    ORDER BY c.relname COLLATE "C" LIMIT 1
"""
# The existing roles of these names on the server, and whether they own the database or were granted CONNECT on it.
EXISTING_SQL = """
    SELECT r.rolname::text, r.oid = d.datdba OR EXISTS (SELECT FROM pg_catalog.aclexplode(d.datacl) AS a
                                                        WHERE a.grantee = r.oid AND a.privilege_type = 'CONNECT')
    FROM pg_catalog.pg_roles AS r JOIN pg_catalog.pg_database AS d ON d.datname = current_database()
    WHERE r.rolname = ANY (%(roles)s)
    ORDER BY r.rolname
"""


@dataclass(frozen=True, slots=True)
class Names:
    """The three roles: `migrate` owns the tables, `app` is the site's and the admin's, `read` only reads."""

    migrate: str
    app: str
    read: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view or sequence of the database."""

    schema: str
    name: str
    kind: str  # of pg_class
    owner: str
    is_ours_to_grant: bool  # by the role of the connection
    is_filtered: bool  # by row-level security
    is_known: bool  # to our migrations
    is_of_ledger: bool  # a sequence of a table that only the role that migrates writes

    @property
    def place(self) -> str:
        """Return its name as a GRANT writes it."""
        return f"{'SEQUENCE ' if self.kind == 'S' else ''}{quote(self.schema)}.{quote(self.name)}"


def roles_sql(connection, tables: list[str], *, prefix: str) -> str:
    """Return the SQL that creates or updates the roles of `prefix`, for those of `tables` that exist.

    Raises Refusal if no role's name may begin with the prefix, if such a role exists that no earlier run created, or if an
    untrusted role owns one of the tables.
    """
    if not prefix or len(prefix.encode()) > 50 or prefix.startswith("pg_") or "\0" in prefix:
        raise Refusal(f"“{prefix}” cannot be the prefix of role names: give --prefix 1 to 50 bytes that do not begin with pg_.")
    names = Names(*(f"{prefix}_{end}" for end in ("migrate", "app", "read")))
    with catalogue(connection) as cursor:
        cursor.execute("SELECT pg_catalog.current_database()")
        database, schema = cursor.fetchone()[0], read_schema(connection)
        place = {"schema": schema, "tables": [*tables, *LEDGERS], "ledgers": list(LEDGERS)}
        roles = {"roles": [names.migrate, names.app, names.read]}
        cursor.execute(UNTRUSTED_OWNER_SQL, place)
        _refuse_untrusted(cursor.fetchone(), schema, names.migrate)
        cursor.execute(EXISTING_SQL, roles)
        existing = dict(cursor.fetchall())
        cursor.execute(TABLES_SQL, place)
        there = cursor.fetchall()
        cursor.execute(OWNERS_SQL, place | roles)
        owners = dict(cursor.fetchall())
        cursor.execute(RELATIONS_SQL, place)
        relations = [Relation(*row) for row in cursor.fetchall()]
        cursor.execute(SCHEMAS_SQL, place)
        schemas = cursor.fetchall()
    _refuse_unknown(existing, database)
    makers = dict(sorted((one.owner, one.is_ours_to_grant) for one in relations if one.owner != names.migrate))
    others = sorted({one.owner for one in relations if not one.is_known} - {names.migrate})
    lines = [
        *_roles(names, existing, database, schema),
        *_owners(names, owners),
        *_tables(names, schema, there),
        *_sequences(names, relations),
        *_site_grants(names, schema, [one for one in relations if not one.is_known]),
        *_other_schemas(names, schemas),
        *_default_privileges(names, schema, makers),
    ]
    lines += ["COMMIT;", *_closing_notes(names, database, schema, owners, others)]
    return "".join(f"{_whole(line)}\n" for line in lines)


def _whole(line: str) -> str:
    """Return a line, with line breaks in a comment commented out: a name may contain some."""
    return re.sub(r"[\r\n]+", "\n-- ", line) if line.startswith("--") else line


def _refuse_untrusted(found: tuple[str, str] | None, schema: str, migrate: str) -> None:
    """Raise Refusal if another role created a table with one of our names: it would get the privileges of the tables' owner."""
    if found:
        table, owner = found
        raise Refusal(
            f"The table {table} belongs to the role {owner}, which would become a member of {migrate}, the owner of all tables. If it"
            f" is the site's role: GRANT CREATE ON SCHEMA {quote(schema)} TO {quote(owner)} WITH GRANT OPTION; otherwise drop the table."
            f" To keep that role from creating another: REVOKE CREATE ON SCHEMA {quote(schema)} FROM PUBLIC, {quote(owner)};"
        )


def _refuse_unknown(existing: dict[str, bool], database: str) -> None:
    """Raise Refusal for an existing role without CONNECT on the database, which an earlier run would have granted."""
    for name, is_known in existing.items():
        if not is_known:
            raise Refusal(
                f"The role {name} exists, but no earlier run granted it CONNECT on this database: any role with CREATEROLE may have created it, be a"
                " member of it or know its password, or another database uses it. Choose other names with --prefix; or, if it is"
                f" yours, GRANT CONNECT ON DATABASE {quote(database)} TO {quote(name)}; and run the command again."
            )


def _roles(names: Names, existing: dict[str, bool], database: str, schema: str) -> Iterator[str]:
    yield "-- Read this, then run it as a superuser, or as the owner of the database with CREATEROLE: manage.py dbroles | manage.py dbshell -- -v ON_ERROR_STOP=1"
    yield "-- It contains no passwords. Set one for each role afterwards, in manage.py dbshell: \\password"
    yield "BEGIN;"
    yield "SET LOCAL lock_timeout TO '2s';  -- Clients queue behind a waiting statement. If this times out, nothing was changed; run it again."
    yield from (f"CREATE ROLE {quote(name)} LOGIN;" for name in (names.migrate, names.app, names.read) if name not in existing)
    everybody = ", ".join(map(quote, (names.migrate, names.app, names.read)))
    yield f"GRANT CONNECT ON DATABASE {quote(database)} TO {everybody};"
    yield f"GRANT CREATE, TEMPORARY ON DATABASE {quote(database)} TO {quote(names.migrate)};  -- Extensions."
    yield f"GRANT USAGE ON SCHEMA {quote(schema)} TO {everybody};"
    yield f"GRANT CREATE ON SCHEMA {quote(schema)} TO {quote(names.migrate)} WITH GRANT OPTION;  -- This makes the role trusted."
    yield f"ALTER ROLE {quote(names.app)} SET idle_in_transaction_session_timeout TO '5min';"
    yield f"ALTER ROLE {quote(names.read)} SET default_transaction_read_only TO on;"
    yield f"ALTER ROLE {quote(names.read)} SET statement_timeout TO '5min';"


def _owners(names: Names, owners: dict[str, bool]) -> Iterator[str]:
    for name, owns in owners.items():
        why = "The current owner of the tables keeps its access." if owns else "The role that runs this SQL."
        yield f"GRANT {quote(names.migrate)} TO {quote(name)};  -- {why}"


def _closing_notes(names: Names, database: str, schema: str, owners: dict[str, bool], others: list[str]) -> Iterator[str]:
    if others:  # A restore gives objects back to their owners.
        members = ", ".join(map(quote, (names.migrate, *others)))
        yield f"-- dbrestore needs a superuser, or the owner of the database with CREATEDB and membership in each of {members}."
    else:
        yield f"-- For dbrestore, which creates a database: ALTER ROLE {quote(names.migrate)} CREATEDB;"
    yield f"-- For dbbackup, including objects that other roles create later, as a superuser: GRANT pg_read_all_data TO {quote(names.migrate)}; ALTER ROLE {quote(names.migrate)} BYPASSRLS;"
    yield "-- Once every client uses one of the three roles:"
    yield from (f"-- REVOKE {quote(names.migrate)} FROM {quote(name)};" for name in owners)
    yield f"-- REVOKE ALL ON DATABASE {quote(database)} FROM PUBLIC;"
    yield f"-- REVOKE CREATE ON SCHEMA {quote(schema)} FROM PUBLIC;"


def _tables(names: Names, schema: str, tables: list[tuple[str, list[str], str]]) -> Iterator[str]:
    migrate, app, read = map(quote, (names.migrate, names.app, names.read))
    managed = {(version.object.table, version.object.name) for version in load().versions if isinstance(version.object, Column)}
    for name, columns, owner in tables:
        place = f"{quote(schema)}.{quote(name)}"
        if owner != names.migrate:  # It would lock the table needlessly.
            yield f"ALTER TABLE {place} OWNER TO {migrate};"
        yield f"REVOKE ALL ON {place} FROM {app}, {read};"
        may = "SELECT" if name in LEDGERS else "SELECT, INSERT" if name in APPEND_ONLY else "SELECT, INSERT, UPDATE, DELETE"
        yield f"GRANT {may} ON {place} TO {app};"
        unmanaged = [column for column in columns if name not in LEDGERS and (name, column) not in managed]
        if hidden := {*SECRETS.get(name, ()), *unmanaged}:
            shown = ", ".join(quote(column) for column in columns if column not in hidden)
            yield f"GRANT SELECT ({shown}) ON {place} TO {read};"
        else:
            yield f"GRANT SELECT ON {place} TO {read};"
        if unmanaged:
            yield f"-- Columns that no migration built; if they hold no secrets: GRANT SELECT ({', '.join(map(quote, unmanaged))}) ON {place} TO {read};"


def _sequences(names: Names, relations: list[Relation]) -> Iterator[str]:
    for one in relations:
        if one.kind == "S" and one.is_known:
            if one.is_of_ledger:  # Default privileges may have given it.
                yield f"REVOKE ALL ON {one.place} FROM {quote(names.app)};"
            else:
                yield f"GRANT USAGE, SELECT ON {one.place} TO {quote(names.app)};"


def _site_grants(names: Names, schema: str, relations: list[Relation]) -> Iterator[str]:
    """Yield the grants on the site's other objects and on those that a backup reads; their owners stay the same."""
    if not relations:
        return
    yield f"-- Other objects in this database: {quote(names.app)} may use those in the schema {quote(schema)}, {quote(names.migrate)} may read all for backups."
    yield f"-- Their owners stay the same. {quote(names.read)} gets no privileges on them: grant it SELECT on those that hold no secrets."
    for one in relations:
        if one.schema == schema:
            if one.name == PRISMAS_LEDGER:  # Default privileges may have given more.
                yield _or_as_comment(
                    one.owner, one.is_ours_to_grant, f"REVOKE INSERT, UPDATE, DELETE ON {one.place} FROM {quote(names.app)};"
                )
            yield _grant(one, _app_grants(one), names.app)
        if one.kind in ("r", "p", "S"):  # A dump has only the definition of other objects.
            yield _grant(one, "SELECT", names.migrate)
        if one.is_filtered:
            yield f"-- {one.place} has row-level security: policies decide which rows these roles see, and a backup by {quote(names.migrate)} needs BYPASSRLS."


def _app_grants(relation: Relation) -> str:
    if relation.kind == "S":
        return "USAGE, SELECT"
    return "SELECT" if relation.kind == "m" or relation.name == PRISMAS_LEDGER else "SELECT, INSERT, UPDATE, DELETE"


def _grant(relation: Relation, privileges: str, role: str) -> str:
    return _or_as_comment(
        relation.owner, relation.is_ours_to_grant, f"GRANT {privileges} ON {relation.place} TO {quote(role)};"
    )


def _or_as_comment(owner: str, is_ours: bool, statement: str) -> str:
    """Return a statement that only `owner` may run, as a comment if this role may not, so that the rest succeeds."""
    return statement if is_ours else f"-- Left out: only a member of {quote(owner)} may run it: {statement}"


def _other_schemas(names: Names, schemas: list[tuple[str, str, bool]]) -> Iterator[str]:
    for schema, owner, is_ours_to_grant in schemas:
        yield _or_as_comment(owner, is_ours_to_grant, f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(names.migrate)};")


def _default_privileges(names: Names, schema: str, makers: dict[str, bool]) -> Iterator[str]:
    yield "-- Objects created later, by migrations and by the owners of other objects. After each migration, run this command and its SQL again:"
    yield f"-- until then, {quote(names.read)} cannot read new tables, but can read new secret columns of a table that it may read as a whole."
    migrate, app = quote(names.migrate), quote(names.app)
    for maker, is_ours in {names.migrate: True, **makers}.items():
        granted = [
            f"IN SCHEMA {quote(schema)} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app};",
            f"IN SCHEMA {quote(schema)} GRANT USAGE, SELECT ON SEQUENCES TO {app};",
        ]
        if maker != names.migrate:  # In every schema, because a backup reads them all.
            granted += [
                f"GRANT {what} TO {migrate};" for what in ("SELECT ON TABLES", "SELECT ON SEQUENCES", "USAGE ON SCHEMAS")
            ]
        yield from (
            _or_as_comment(maker, is_ours, f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(maker)} {grant}") for grant in granted
        )
