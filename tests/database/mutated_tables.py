"""Damages to tables and columns, each with the expected findings."""

from __future__ import annotations

from collections.abc import Iterator

from fly2any.database.schema import Column, Key, Table
from tests.database.mutation import EXPECTED, Mutation, at, column_type, columns, expression_of, hanging_on, kind, missing, q

POINTING = {(key.table, name): key.target for key in EXPECTED.foreign_keys for name in key.columns}
OTHER_TYPE = {
    "text": "character varying(255)",
    "timestamp with time zone": "timestamp(3) without time zone",
    "boolean": "text",
    "integer": "smallint",
    "bigint": "numeric",
    "double precision": "real",
    "jsonb": "json",
    "text[]": "character varying[]",
    "smallint": "integer",
}
OTHER_DEFAULT = {
    "text": "'other'",
    "timestamp with time zone": "clock_timestamp()",
    "boolean": "(1 > 2)",
    "inet": "'203.0.113.1'::inet",
    "integer": "7",
    "bigint": "7",
    "double precision": "7.5",
    "jsonb": "'[]'",
    "text[]": "'{x}'",
    "smallint": "7",
}
# Rows that `migrate` inserts: an index build also sees rows that the transaction deleted.
FILLED = {
    "auth_group",
    "auth_group_permissions",
    "auth_permission",
    "django_content_type",
    "django_migrations",
    "fly2any_migration_runs",
}
TRIGGER_SQL = "CREATE OR REPLACE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"

SEARCHING_SQL = """
    CREATE OR REPLACE FUNCTION theirs_clean(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(t)';
    CREATE OR REPLACE FUNCTION theirs_norm(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN theirs_clean(t); END'
"""

UNLIMITED = ("text", "jsonb", "text[]", "bytea")  # types whose values may be longer than an index entry


def limited(table: str) -> set[str]:
    """The columns whose length an index of ours limits."""
    indexes = [index for index in EXPECTED.indexes if index.method == "btree" and not index.predicate]
    return {name for one in (*EXPECTED.keys, *indexes) if one.table == table for name in one.columns}


def of_table(table: Table) -> Iterator[Mutation]:
    def damage(name, sql, *found, **options):
        return Mutation(f"{table.name}: {name}", sql, frozenset(found), **options)

    t = q(table.name)
    fks = [fk for fk in EXPECTED.foreign_keys if table.name in (fk.table, fk.target)]
    yield damage("dropped", f"DROP TABLE {t} CASCADE", ("table.missing", table.name), *missing(fks))
    primary = next(key for key in EXPECTED.keys if key.table == table.name and key.primary)
    taken = f"DROP TABLE {t} CASCADE; CREATE TYPE {t} AS ENUM ('a'); CREATE SEQUENCE {q(primary.name)}"
    yield damage("dropped, and its names taken", taken, ("table.missing", table.name), *missing(fks))
    yield damage("renamed", f"ALTER TABLE {t} RENAME TO moved", ("table.renamed", table.name))
    yield damage("row security", f"ALTER TABLE {t} ENABLE ROW LEVEL SECURITY", ("table.different", table.name))
    yield damage(
        "a trigger",
        f"{TRIGGER_SQL}; CREATE TRIGGER theirs BEFORE INSERT ON {t} EXECUTE FUNCTION theirs()",
        ("trigger.extra", f"{table.name}.theirs"),
    )
    only = f"ALTER TABLE {t} ENABLE REPLICA TRIGGER theirs, ENABLE REPLICA RULE theirs"
    yield damage(
        "a trigger and a rule of replication",
        f"{TRIGGER_SQL}; CREATE TRIGGER theirs BEFORE INSERT ON {t} EXECUTE FUNCTION theirs(); CREATE RULE theirs AS ON DELETE TO {t} DO INSTEAD NOTHING; {only}",
    )
    rule = f"CREATE RULE theirs AS ON {{}} TO {t} {{}} DO INSTEAD NOTHING"
    for command in ("INSERT", "UPDATE", "DELETE"):
        yield damage(f"a rule on {command}", rule.format(command, ""), ("rule.extra", f"{table.name}.theirs"))
        yield damage(
            f"a conditional rule on {command}", rule.format(command, "WHERE true"), ("rule.extra", f"{table.name}.theirs")
        )
        code = "trigger.extra" if command == "DELETE" else "rule.extra"  # The others make INSERT … ON CONFLICT fail.
        also = f"CREATE TABLE theirs_log (id int); CREATE RULE theirs AS ON {command} TO {t} DO ALSO INSERT INTO theirs_log VALUES (1)"
        yield damage(f"a rule beside {command}", also, (code, f"{table.name}.theirs"))
    disabled = f"{rule.format('UPDATE', '')}; ALTER TABLE {t} DISABLE RULE theirs"
    yield damage("a disabled rule", disabled, ("rule.extra", f"{table.name}.theirs"))
    if not any(column.table == table.name and column.identity for column in EXPECTED.columns):  # PostgreSQL 17 refuses those.
        key = primary.columns[0]
        for name, parted, bound, *found in (
            ("a partition", "LIST", "IN ('1')", ("table.partition", table.name)),
            ("a partition of every row", "RANGE", "FROM (MINVALUE) TO (MAXVALUE)", ("table.partition", table.name)),
        ):
            sql = f"CREATE TABLE theirs (LIKE {t}) PARTITION BY {parted} ({q(key)}); ALTER TABLE theirs ATTACH PARTITION {t} FOR VALUES {bound}"
            yield damage(name, sql, *found)
    if not any(fk.target == table.name for fk in fks):
        yield damage("unlogged", f"ALTER TABLE {t} SET UNLOGGED", ("table.weaker", table.name))
    yield damage(
        "replaced by a view",
        f"DROP TABLE {t} CASCADE; CREATE VIEW {t} AS SELECT 1 AS one",
        ("table.different", table.name),
        *missing(fks),
    )
    required = [column for column in EXPECTED.columns if column.table == table.name and not column.nullable]
    first = next(column.name for column in required if column.type not in UNLIMITED or column.name in limited(table.name))
    keyed = {key.columns for key in EXPECTED.keys if key.table == table.name}
    yield damage(
        "an unmanaged column that blocks", f"ALTER TABLE {t} ADD theirs text NOT NULL", ("column.extra", f"{table.name}.theirs")
    )
    yield damage(
        "an unmanaged check that blocks",
        f"ALTER TABLE {t} ADD CONSTRAINT theirs CHECK ({q(first)}::text <> 'true') NOT VALID",
        ("check.extra", f"{table.name}.theirs"),
    )
    spare = [
        column.name
        for column in EXPECTED.columns
        if column.table == table.name and (column.name,) not in keyed and "json" not in column.type
    ]
    if table.name == "user_activities":  # The activity log, which outlives its user.
        sql = f'ALTER TABLE {t} ADD CONSTRAINT theirs FOREIGN KEY ("userId") REFERENCES users ON DELETE CASCADE'
        yield damage("an unmanaged foreign key", sql, ("foreign_key.extra", "user_activities.theirs"), reads="users")
    for column in spare[:1]:
        sql = f"CREATE UNIQUE INDEX theirs ON {t} ({q(column)})"
        yield damage("an unmanaged unique index that blocks", sql, ("unique.extra", f"{table.name}.theirs"))
        sql = f"ALTER TABLE {t} ADD CONSTRAINT theirs UNIQUE ({q(column)})"
        sql = f"ALTER TABLE {t} ADD CONSTRAINT theirs EXCLUDE USING btree ({q(column)} WITH =)"
        yield damage("an unmanaged exclusion that blocks", sql, ("check.extra", f"{table.name}.theirs"))
        sql = f"""CREATE EXTENSION IF NOT EXISTS btree_gist; ALTER TABLE {t} ADD theirs_at tstzrange NOT NULL DEFAULT tstzrange(now(), NULL),
                  ADD CONSTRAINT theirs UNIQUE ({q(column)}, theirs_at WITHOUT OVERLAPS)"""
        yield damage("an unmanaged temporal key that blocks", sql, ("check.extra", f"{table.name}.theirs"), since=18)
        sql = f"ALTER TABLE {t} ADD CONSTRAINT theirs UNIQUE ({q(column)})"
        yield damage("an unmanaged unique constraint that blocks", sql, ("unique.extra", f"{table.name}.theirs"))
    yield damage(
        "an unmanaged invalid index",
        f"CREATE INDEX theirs ON {t} ({q(first)}); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs'::regclass",
        ("index.extra", f"{table.name}.theirs"),
    )
    yield damage(
        "an unmanaged function that needs the search path",
        f"{SEARCHING_SQL}; CREATE STATISTICS {q('theirs_' + table.name)} ON theirs_norm({q(first)}::text) FROM {t}",
        ("table.function", table.name),
    )
    yield from of_writes(table, primary, first)
    yield damage(
        "unmanaged and harmless objects",
        f"""CREATE TABLE theirs (id text PRIMARY KEY, ours {column_type(table.name, primary.columns[0])} REFERENCES {t} ON DELETE SET NULL);
            ALTER TABLE {t} ADD theirs_a text UNIQUE, ADD theirs_b int NOT NULL DEFAULT 0 CHECK (theirs_b >= 0);
            CREATE INDEX theirs_idx ON {t} (theirs_b); CREATE INDEX theirs_too_idx ON {t} ({q(first)});
            CREATE UNIQUE INDEX theirs_wider_idx ON {t} ({columns(primary.columns)}, theirs_b);
            CREATE TYPE theirs_type AS ENUM ('a')""",
    )


def of_writes(table: Table, primary: Key, required: str) -> Iterator[Mutation]:
    """Unmanaged objects that make an INSERT, UPDATE or DELETE of ours fail, and their harmless siblings."""
    t, here, key = q(table.name), f"{table.name}.theirs", q(primary.columns[0])
    type_ = column_type(table.name, primary.columns[0])
    for name, sql, *found in (
        ("a check of NULL, not validated", "ADD theirs text, ADD CONSTRAINT theirs_c CHECK (theirs IS NOT NULL) NOT VALID", ("check.extra", f"{here}_c")),
        ("a check of a default", "ADD theirs int DEFAULT 1, ADD CONSTRAINT theirs_c CHECK (theirs > 1) NOT VALID", ("check.extra", f"{here}_c")),
        ("a check that mixes columns", f"ADD theirs text, ADD CONSTRAINT theirs_c CHECK (theirs IS NOT NULL OR {key}::text <> 'a')", ("check.extra", f"{here}_c")),
        ("a check of an update", f"ADD theirs text, ADD CONSTRAINT theirs_c CHECK (theirs IS NULL OR theirs <> {key}::text)", ("check.extra", f"{here}_c")),
        ("a default of NULL", "ADD theirs text NOT NULL DEFAULT nullif('a', 'a')", ("column.extra", here)),
        ("a default that raises", "ADD theirs int, ALTER theirs SET DEFAULT 1 / 0", ("column.extra", here)),
        ("a default that its type refuses", "ADD theirs varchar(2), ALTER theirs SET DEFAULT 'abc'", ("column.extra", here)),
        ("a default of a setting", "ADD theirs text, ALTER theirs SET DEFAULT current_setting('app.theirs')", ("column.extra", here)),
        ("a default of a lost sequence", "ADD theirs int, ALTER theirs SET DEFAULT nextval('theirs_lost'::text)", ("column.extra", here)),
        ("a default of another role's function", "ADD theirs uuid, ALTER theirs SET DEFAULT theirs_f()", ("column.extra", here)),
        ("a check that raises beside NULL", "ADD theirs text, ADD CONSTRAINT theirs_c CHECK (theirs = current_setting('app.theirs')) NOT VALID", ("check.extra", f"{here}_c")),
        ("a generated column that raises", f"ADD theirs int GENERATED ALWAYS AS (length({key}::text) / 0) STORED", ("column.extra", here)),
        ("a generated column that may be NULL", f"ADD theirs text GENERATED ALWAYS AS (nullif({key}::text, 'a')) STORED NOT NULL", ("column.extra", here)),
        ("one NULL for all", "ADD theirs text, ADD CONSTRAINT theirs_c UNIQUE NULLS NOT DISTINCT (theirs)", ("unique.extra", f"{here}_c")),
        ("one default for all", "ADD theirs int DEFAULT 1, ADD CONSTRAINT theirs_c UNIQUE (theirs)", ("unique.extra", f"{here}_c")),
        ("rows without identity", f"REPLICA IDENTITY NOTHING; CREATE PUBLICATION theirs FOR TABLE {t}", ("table.unidentified", table.name)),
        ("a default that is refused", "ADD theirs int DEFAULT 1, ADD CONSTRAINT theirs_c FOREIGN KEY (theirs) REFERENCES theirs_to", ("foreign_key.extra", f"{here}_c")),
        ("a domain", "ADD theirs theirs_required", ("column.extra", here)),
        ("a domain of a domain", "ADD theirs theirs_long", ("column.extra", here)),
    ):  # fmt: skip
        made = "CREATE TABLE theirs_to (id int PRIMARY KEY); CREATE DOMAIN theirs_required AS text NOT NULL;"
        made += " CREATE FUNCTION theirs_f() RETURNS uuid STABLE LANGUAGE sql AS 'SELECT NULL::uuid';"
        made += " CREATE DOMAIN theirs_default AS text DEFAULT ''; CREATE DOMAIN theirs_long AS theirs_default CHECK (length(VALUE) > 1);"
        since = 15 if "NULLS NOT DISTINCT" in sql else 0
        yield Mutation(f"{table.name}: {name}", f"{made} ALTER TABLE {t} {sql}", frozenset(found), since)
    other = next((c.name for c in EXPECTED.columns if c.table == table.name and c.name not in primary.columns), "")
    for name, sql, *found, since in (
        ("kept by a table that cascades", f"CREATE TABLE theirs (id int PRIMARY KEY, ours {type_} REFERENCES {t} ON DELETE CASCADE);"
         " CREATE TABLE theirs_b (a int REFERENCES theirs)", ("foreign_key.restricts", "theirs_b.theirs_b_a_fkey"), 0),
        ("inherited by a table", f"CREATE TABLE theirs () INHERITS ({t}); CREATE TABLE theirs_b () INHERITS (theirs)", ("table.inherited", table.name), 0),
        ("kept by a check", f"CREATE TABLE theirs (ours {type_} REFERENCES {t} ON DELETE SET NULL CHECK (ours IS NOT NULL))", ("foreign_key.restricts", "theirs.theirs_ours_fkey"), 0),
        ("kept by a check of two columns", f"CREATE TABLE theirs (ours {type_} REFERENCES {t} ON DELETE SET NULL, b int, CHECK (num_nonnulls(ours, b) = 1))", ("foreign_key.restricts", "theirs.theirs_ours_fkey"), 0),
        ("kept by a default", f"CREATE TABLE theirs (ours {type_} DEFAULT '0' REFERENCES {t} ON DELETE SET DEFAULT)", ("foreign_key.restricts", "theirs.theirs_ours_fkey"), 0),
        ("kept by no default", f"CREATE TABLE theirs (ours {type_} DEFAULT NULL REFERENCES {t} ON DELETE SET DEFAULT)", 0),
        ("kept by a published table", f"CREATE TABLE theirs (ours {type_} REFERENCES {t} ON DELETE CASCADE); CREATE PUBLICATION theirs FOR TABLE theirs", ("foreign_key.restricts", "theirs.theirs_ours_fkey"), 0),
        ("kept by NULLS NOT DISTINCT", f"CREATE TABLE theirs (ours {type_} UNIQUE NULLS NOT DISTINCT REFERENCES {t} ON DELETE SET NULL)", ("foreign_key.restricts", "theirs.theirs_ours_fkey"), 15),
        ("kept by a domain", f"CREATE DOMAIN theirs_d AS {type_} NOT NULL; CREATE TABLE theirs (ours theirs_d REFERENCES {t} ON DELETE SET NULL)", ("foreign_key.restricts", "theirs.theirs_ours_fkey"), 0),
        ("kept by a rule", f"CREATE TABLE theirs (ours {type_} REFERENCES {t} ON DELETE CASCADE); CREATE RULE theirs AS ON DELETE TO theirs DO INSTEAD NOTHING", ("foreign_key.restricts", "theirs.theirs_ours_fkey"), 0),
        ("deleted with a published table", f"CREATE TABLE theirs (ours {type_} PRIMARY KEY REFERENCES {t} ON DELETE CASCADE); CREATE PUBLICATION theirs FOR TABLE theirs", 0),
        ("a trigger beside a cascade", f"{TRIGGER_SQL}; CREATE TABLE theirs (ours {type_} REFERENCES {t} ON DELETE CASCADE); CREATE TRIGGER theirs BEFORE DELETE ON theirs FOR EACH ROW EXECUTE FUNCTION theirs()", ("trigger.extra", "theirs.theirs"), 0),
        ("a trigger beside no cascade", f"{TRIGGER_SQL}; CREATE TABLE theirs (ours {type_} REFERENCES {t} ON DELETE CASCADE); CREATE TRIGGER theirs BEFORE UPDATE ON theirs FOR EACH ROW EXECUTE FUNCTION theirs()", 0),
        ("an unvalidated check", f"ALTER TABLE {t} ADD theirs int DEFAULT 1, ADD CONSTRAINT theirs_c CHECK (theirs > 0) NOT VALID", ("check.extra", f"{here}_c"), 0),
        ("kept by NOT NULL", f"CREATE TABLE theirs (ours {type_} NOT NULL REFERENCES {t} ON DELETE SET NULL)", ("foreign_key.restricts", "theirs.theirs_ours_fkey"), 0),
        ("published in part", f"CREATE PUBLICATION theirs FOR TABLE {t} ({q(other)})", ("table.unidentified", table.name), 15),
        ("published by a filter", f"CREATE PUBLICATION theirs FOR TABLE {t} WHERE ({q(other)} IS NOT NULL)", ("table.unidentified", table.name), 15),
        ("published whole", f"CREATE PUBLICATION theirs FOR TABLE {t} WHERE ({key} IS NOT NULL)", 15),
        ("an index that may raise", f"CREATE INDEX theirs ON {t} ((10 / length({key}::text)))", ("index.extra", here), 0),
    ):  # fmt: skip
        if other or not name.startswith("published"):
            yield Mutation(f"{table.name}: {name}", sql, frozenset(found), since)
    if table.name not in FILLED:
        sql = f"CREATE INDEX theirs ON {t} ((length({key}::text) / 0))"
        yield Mutation(f"{table.name}: an index that raises", sql, frozenset([("index.extra", here)]))
    yield Mutation(
        f"{table.name}: a NOT NULL that is not validated",
        f"ALTER TABLE {t} ADD theirs text, ADD CONSTRAINT theirs_n NOT NULL theirs NOT VALID",
        frozenset([("column.extra", here)]),
        since=18,
    )
    yield Mutation(
        f"{table.name}: a NOT NULL with a default that is not validated",
        f"ALTER TABLE {t} ADD theirs text DEFAULT 'a', ADD CONSTRAINT theirs_n NOT NULL theirs NOT VALID",
        frozenset([("column.extra", here)]),
        since=18,
    )
    yield Mutation(
        f"{table.name}: kept by a key of another table",
        f"CREATE TABLE theirs (ours {type_} REFERENCES {t} ON DELETE RESTRICT)",
        frozenset([("foreign_key.restricts", "theirs.theirs_ours_fkey")]),
    )
    yield Mutation(
        f"{table.name}: the same, said otherwise",
        f"""ALTER TABLE {t} ADD CONSTRAINT theirs_a CHECK ({q(required)} IS NOT NULL), ADD theirs_b text,
                ADD CONSTRAINT theirs_c CHECK (theirs_b IS NULL OR length(theirs_b) > 2), ADD theirs_d text UNIQUE,
                ADD CONSTRAINT theirs_e CHECK ({q(required)} IS NOT NULL AND (theirs_b IS NULL OR true)), ADD theirs_g uuid UNIQUE DEFAULT gen_random_uuid();
            CREATE UNIQUE INDEX theirs_h ON {t} ({key}, lower(theirs_b));
            CREATE UNIQUE INDEX theirs_i ON {t} ({q(required)}) WHERE theirs_b IS NOT NULL;
            CREATE UNIQUE INDEX theirs_j ON {t} (lower(theirs_b))""",
        frozenset(),
    )
    flags = [column.name for column in EXPECTED.columns if column.table == table.name and column.type == "boolean"]
    checks = [f"{q(name)} IN (true, false)" for name in flags] + [
        f"{q(name)} IS NOT FALSE OR {q(name)} IS FALSE" for name in flags
    ]
    checks += [
        f"length({key}::text) >= 0",
        f"octet_length('a' || {key}::text) > -1",
        f"{key} = {key} AND {key} <= {key}",
        f"{q(required)} IS NULL OR {q(required)} IS NOT NULL",
    ]
    added = ", ".join(f"ADD CHECK ({check})" for check in checks)
    yield Mutation(
        f"{table.name}: what refuses nothing",
        f"""ALTER TABLE {t} {added}, ADD CONSTRAINT theirs_x EXCLUDE USING btree ({key} WITH =);
            CREATE UNIQUE INDEX theirs_a ON {t} (({key}::text || '')); CREATE UNIQUE INDEX theirs_b ON {t} (reverse('a' || {key}::text));
            CREATE UNIQUE INDEX theirs_c ON {t} (coalesce({key}::text, '-')); CREATE UNIQUE INDEX theirs_d ON {t} (({key}::varchar));
            CREATE UNIQUE INDEX theirs_e ON {t} ({q(required)}) WHERE {key} IS NULL""",
        frozenset(),
    )
    for name, expression in (("cut", f"left({key}::text, 3)"), ("cut by its type", f"({key}::text)::varchar(3)"), ("of two columns", f"({key}::text || {key}::text)")):  # fmt: skip
        sql = f"CREATE UNIQUE INDEX theirs ON {t} (({expression}))"
        notes = [("index.extra", here)] if "varchar" in expression else []
        yield Mutation(f"{table.name}: a unique index of a key {name}", sql, frozenset([("unique.extra", here), *notes]))

    yield from of_values(table, key)


def of_values(table: Table, key: str) -> Iterator[Mutation]:
    """Unmanaged objects that refuse some values, and their harmless siblings."""
    t, here = q(table.name), f"{table.name}.theirs"
    here_c = f"{here}_c"
    columns_ = [column for column in EXPECTED.columns if column.table == table.name and column.type in UNLIMITED]
    long = [column for column in columns_ if column.name not in limited(table.name)]
    for name, sql, *found in (
        ("a default of few values", "ADD theirs text DEFAULT left(gen_random_uuid()::text, 1), ADD CONSTRAINT theirs_c UNIQUE (theirs)", ("unique.extra", here_c)),
        ("a default of the time", "ADD theirs timestamptz DEFAULT now(), ADD CONSTRAINT theirs_c UNIQUE (theirs)", ("unique.extra", here_c)),
        ("defaults of many values", "ADD a_theirs text UNIQUE DEFAULT md5(random()::text), ADD b_theirs text UNIQUE DEFAULT ('u' || gen_random_uuid()::text),"
         " ADD c_theirs text UNIQUE DEFAULT replace(gen_random_uuid()::text, '-', ''), ADD d_theirs bigserial UNIQUE"),
    ):  # fmt: skip
        yield Mutation(f"{table.name}: {name}", f"ALTER TABLE {t} {sql}", frozenset(found))
    for column in long[:1]:
        c, text = q(column.name), column.type == "text"
        for name, index, *found in (
            ("an index over a long value", f"({c})", ("index.extra", here)),
            ("a long value beside a key", f"({key}) INCLUDE ({c})", ("index.extra", here)),
            ("a long value in a unique key", f"({key}, {c})", ("index.extra", here)),
            ("a long value of some rows", f"({c}) WHERE {c} IS NOT NULL", ("index.extra", here)),
            ("a long value in lower case", f"(lower({c}::text))", ("index.extra", here)),
            ("a part of a long value", f"(left({c}::text, 500), md5({c}::text)) WHERE {c} IS NOT NULL"),
            ("a short value", f"({c}) WHERE octet_length({c}::text) < 2000"),
        ):  # fmt: skip
            unique = "UNIQUE " if "unique" in name else ""
            yield Mutation(f"{table.name}: {name}", f"CREATE {unique}INDEX theirs ON {t} {index}", frozenset(found))
        if text:
            sql = f"CREATE INDEX theirs ON {t} USING hash ({c}); CREATE INDEX theirs_b ON {t} USING spgist ({c})"
            yield Mutation(f"{table.name}: indexes without long entries", sql, frozenset())
            made = f"ALTER TABLE {t} ADD theirs tsvector GENERATED ALWAYS AS (to_tsvector('english', %s)) STORED"
            yield Mutation(f"{table.name}: words of a long text", made % c, frozenset([("column.extra", here)]))
            yield Mutation(f"{table.name}: words of a part of it", made % f"left(coalesce({c}, ''), 50000)", frozenset())
            sql = f"CREATE INDEX theirs ON {t} USING gin (to_tsvector('simple', {c}))"
            yield Mutation(f"{table.name}: an index of its words", sql, frozenset([("index.extra", here)]))
    for column in [column for column in columns_ if column not in long and column.type == "text"][:1]:
        sql = f"CREATE INDEX theirs ON {t} ({q(column.name)}); CREATE INDEX theirs_b ON {t} USING gin (to_tsvector('simple', {q(column.name)}));"
        sql += f" CREATE INDEX theirs_c ON {t} (lower({q(column.name)}))"
        yield Mutation(f"{table.name}: a value that ours limits", sql, frozenset())


def of_column(column: Column) -> Iterator[Mutation]:
    def damage(name, sql, *found, **options):
        return Mutation(f"{at(column)}: {name}", sql, frozenset(found), **options)

    alter = f"ALTER TABLE {q(column.table)} ALTER {q(column.name)}"
    primary = any(key.primary and column.name in key.columns for key in EXPECTED.keys if key.table == column.table)
    hanging = hanging_on(column)
    yield damage(
        "dropped",
        f"ALTER TABLE {q(column.table)} DROP {q(column.name)} CASCADE",
        ("column.missing", at(column)),
        *missing(hanging),
    )
    named = {(f"{kind(thing)}.different", at(thing)) for thing in hanging if column.name in expression_of(thing)}
    if column.table not in (
        "django_content_type",
        "axes_accessattempt",
        "axes_accesslog",
    ):  # A migration dropped a column there, so a rename cannot be distinguished from a drop.
        sql = f"ALTER TABLE {q(column.table)} RENAME {q(column.name)} TO moved"
        yield damage("renamed", sql, ("column.renamed", at(column)), *named)
    type_ = column.type if column.type in OTHER_TYPE else "character varying"
    if not column.identity and not named:
        other = OTHER_TYPE.get(column.type, "character varying(9)")  # A longer one is a note.
        if column.type == "bigint" and (column.table, column.name) in POINTING:
            other = "integer"  # No foreign key goes from numeric to bigint.
        yield damage(
            f"{type_} made {other}",
            f"{alter} DROP DEFAULT; {alter} TYPE {other} USING {q(column.name)}::{other}"
            + (f"; {alter} SET DEFAULT {default_for(column, other)}" if column.default else ""),
            ("column.different", at(column)),
            reads=POINTING.get((column.table, column.name), ""),
        )
    if column.type in ("text", "jsonb", "text[]", "bytea"):
        yield damage("stored plain", f"{alter} SET STORAGE PLAIN", ("column.storage", at(column)))
    if column.type.startswith(("text", "character")):
        yield damage("collation", f'{alter} TYPE {column.type} COLLATE "C"', ("column.different", at(column)))
    if column.nullable:
        yield damage("made NOT NULL", f"{alter} SET NOT NULL", ("column.different", at(column)))
    elif not primary and not column.identity:
        yield damage("made nullable", f"{alter} DROP NOT NULL", ("column.weaker", at(column)))
        yield damage(
            "NOT NULL not validated",
            f"{alter} DROP NOT NULL; ALTER TABLE {q(column.table)} ADD CONSTRAINT nn NOT NULL {q(column.name)} NOT VALID",
            ("column.weaker", at(column)),
            since=18,
        )
    if not column.nullable and not column.identity:
        sql = f"{alter} DROP NOT NULL; ALTER TABLE {q(column.table)} ADD CONSTRAINT nn NOT NULL {q(column.name)}"
        if not primary:
            yield damage("NOT NULL of another name", sql, since=18)
    elif column.nullable:
        sql = f"ALTER TABLE {q(column.table)} ADD CONSTRAINT nn NOT NULL {q(column.name)} NOT VALID"
        yield damage("made NOT NULL, not validated", sql, ("column.different", at(column)), since=18)
    if column.nullable and column.default is None and not hanging:
        drop = f"ALTER TABLE {q(column.table)} DROP {q(column.name)}; ALTER TABLE {q(column.table)} ADD {q(column.name)} {column.type}"
        made = f"{drop} GENERATED ALWAYS AS (NULL::{column.type})"
        yield damage("made generated", f"{made} STORED", ("column.different", at(column)))
        yield damage("made generated when it is read", f"{made} VIRTUAL", ("column.different", at(column)), since=18)
    if column.identity:
        yield damage("identity dropped", f"{alter} DROP IDENTITY", ("column.different", at(column)))
        serial = f"{alter} DROP IDENTITY; CREATE SEQUENCE theirs OWNED BY {q(column.table)}.{q(column.name)}; {alter} SET DEFAULT nextval('theirs'); SELECT setval('theirs', 1000)"
        yield damage("identity made a serial", serial, ("column.different", at(column)))
        yield damage("identity always", f"{alter} SET GENERATED ALWAYS", ("column.different", at(column)))
        return
    if column.default is None:
        yield damage(
            "given a default",
            f"{alter} SET DEFAULT {OTHER_DEFAULT.get(column.type, quote_default)}",
            ("default.extra", at(column)),
        )
    else:
        same = {"CURRENT_TIMESTAMP": "now()"}.get(column.default, f"({column.default}::{column.type})::{column.type}")
        yield damage("default said otherwise", f"{alter} SET DEFAULT {same}")
        yield damage("default dropped", f"{alter} DROP DEFAULT", ("default.missing", at(column)))
        other = "true" if column.default == "false" else OTHER_DEFAULT[column.type]
        yield damage("default changed", f"{alter} SET DEFAULT {other}", ("default.different", at(column)))


quote_default = "'other'"


def default_for(column: Column, type_: str) -> str:
    return f"({column.default})::{type_}"
