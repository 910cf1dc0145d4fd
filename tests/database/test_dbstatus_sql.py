"""`dbstatus --sql`: psql runs its output, and the database is then as defined."""

import io
import re
import subprocess

import pytest
from django.conf import settings
from django.core.management import call_command

from fly2any.database.report.script import ENDLESS
from fly2any.database.schema import Column, where
from fly2any.database.schema import contract as contracts
from fly2any.database.schema.columns import GRANTS
from fly2any.database.schema.comparing import MAY_BE_ANOTHERS
from fly2any.database.schema.type_changes import lost_by_type_change
from fly2any.postgres.embedded import bin_folder
from tests.conftest import django, manage
from tests.database.mutations import mutations, rounds
from tests.servers import open_transaction

ROUNDS = rounds(mutations())
DAMAGES = """
    ALTER TABLE price_alerts ALTER "notificationCount" TYPE numeric, DROP CONSTRAINT "price_alerts_userId_fkey",
        ADD CONSTRAINT "not\nours; DROP TABLE users" CHECK (origin <> 'XXX');
    ALTER TABLE wishlist_items ALTER notes SET NOT NULL
"""
LIMIT = f"SET lock_timeout TO '{settings.LOCK_TIMEOUT}ms';"
SCRIPT = """-- Cures: 2 to run, 2 commented out, 1 without SQL.
-- Stop at the first that fails: manage.py dbstatus --sql | manage.py dbshell -- -v ON_ERROR_STOP=1
LIMIT  -- The site queues behind a statement that waits for a lock: if this fails, print the script again and run it when the database is less busy.
ENDLESS  -- A role or database may limit each statement to less than an index build takes.

SET search_path TO "public";

-- WARNING server.time_zone at DATABASE: The database's time zone is Europe/Paris: other sessions read and write times in this zone, but the guide asks for UTC.
-- No SQL: ALTER DATABASE DATABASE SET timezone TO 'UTC';

-- ERROR column.different at price_alerts.notificationCount: Column notificationCount of price_alerts is numeric, not integer.
-- Commented out: values of the type numeric are rounded or truncated if integer cannot hold them.
-- ALTER TABLE "price_alerts" ALTER COLUMN "notificationCount" DROP DEFAULT, ALTER COLUMN "notificationCount" TYPE integer USING "notificationCount"::integer, ALTER COLUMN "notificationCount" SET DEFAULT 0;
-- ANALYZE "price_alerts" ("notificationCount");

-- ERROR column.different at wishlist_items.notes: Column notes of wishlist_items may not be NULL, so writes without it fail.
ALTER TABLE "wishlist_items" ALTER COLUMN "notes" DROP NOT NULL;

-- WARNING check.extra at price_alerts.not\\u000aours; DROP TABLE users: Constraint not\\u000aours; DROP TABLE users of price_alerts, CHECK ((origin <> 'XXX'::text)), is unmanaged, and refuses rows that the contract allows, such as origin = 'XXX'.
-- Commented out: it changes an unmanaged object; ask its owner first.
-- ALTER TABLE "price_alerts" DROP CONSTRAINT "not
-- ours; DROP TABLE users";
-- -- Or keep it: `manage.py dbstatus --take-over 'price_alerts.not ours; DROP TABLE users'` writes the migration that takes it over.

-- ERROR foreign_key.missing at price_alerts.price_alerts_userId_fkey: Foreign key price_alerts_userId_fkey of price_alerts is missing.
ALTER TABLE "price_alerts" ADD CONSTRAINT "price_alerts_userId_fkey" FOREIGN KEY ("userId") REFERENCES "users" ("id") ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;
-- Remove orphans first: SELECT * FROM "price_alerts" AS c WHERE c."userId" IS NOT NULL AND NOT EXISTS (SELECT FROM "users" AS p WHERE p."id" = c."userId")
ALTER TABLE "price_alerts" VALIDATE CONSTRAINT "price_alerts_userId_fkey";
"""


@pytest.fixture
def status(migrated):
    """A function that returns the exit code of `dbstatus --sql` for the database `migrated`, and what it printed."""

    def run():
        out = io.StringIO()
        with django(migrated) as connection, pytest.raises(SystemExit) as end:
            call_command("dbstatus", "--sql", database=connection.alias, stdout=out)
        return end.value.code, out.getvalue()

    return run


def psql(database, script):
    """Run a script as the page says; return its exit code and what psql said of errors."""
    place = ["-h", database.host, "-p", database.port, "-U", database.user, "-d", database.name]
    command = [str(bin_folder() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", *place]
    done = subprocess.run(command, input=script, capture_output=True, text=True, cwd="/")
    return done.returncode, done.stderr


def agreed(script):
    """The script with what it comments out."""
    return re.sub(r"^(-- Commented out: .*\n)((?:--.*\n)+)", lambda m: m[1] + re.sub("(?m)^-- ", "", m[2]), script, flags=re.M)


def test_only_cures_are_printed_in_order_and_lossy_ones_are_comments(migrated, status):
    migrated.execute(DAMAGES)
    migrated.execute(f"ALTER DATABASE {migrated.name} SET timezone TO 'Europe/Paris'")

    assert status() == (
        4,
        SCRIPT.replace("LIMIT", LIMIT)
        .replace("ENDLESS", ENDLESS)
        .replace("DATABASE DATABASE", f"DATABASE {migrated.name}")
        .replace("at DATABASE", f"at {migrated.name}"),
    )


def test_an_undamaged_database_needs_no_cures(status):
    assert status() == (0, "-- Nothing to cure in the database.\n")


MAY_RELY = "the site's inserts may rely on it"
NO_LONGER_READ = "the new table is empty, and the rows of the view are no longer read"

# Without their rows dbstatus has other findings; test_mutations damages these tables, too.
FILLED = {"django_migrations", "auth_permission", "django_content_type"}


@pytest.mark.parametrize("place", [0, 10, 60, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, len(ROUNDS), 9))])
def test_the_script_cures_what_was_damaged(migrated, status, place):
    version = migrated.execute("SHOW server_version_num")[0][0]
    possible = [one for one in ROUNDS[place] if version >= f"{one.since:02}" and one.table not in FILLED]
    migrated.execute("DELETE FROM auth_group; DELETE FROM fly2any_migration_runs")
    for mutation in possible:
        migrated.execute(mutation.sql)

    code, script = status()
    contract = contracts.load()
    final = contracts.catalog_of(contract.expected(contract.migrations))
    noted = {("default.extra", where(column)) for column in final.columns if not column.nullable}
    noted |= {("column.different", where(column)) for column in final.columns if column.type == "smallint"}
    assert code == (4 if any(mutation.found - noted for mutation in possible) else 0)
    # Cures that build on a renaming, or on a table in the place of a view, fail without it.
    needs_agreement = any(reason in script for reason in (MAY_BE_ANOTHERS, NO_LONGER_READ, MAY_RELY, GRANTS))
    assert psql(migrated, agreed(script) if needs_agreement else script) == (0, "")
    _, rest = status()
    assert psql(migrated, agreed(rest)) == (0, "")

    assert status() == (0, "-- Nothing to cure in the database.\n")


def test_a_script_renames_nothing_that_may_belong_to_another_program(migrated, status):
    migrated.execute('ALTER TABLE users RENAME "isSuperuser" TO "isAgent"; ALTER TABLE verification_tokens RENAME TO "theirs"')

    _, script = status()

    assert re.findall("^-- Commented.*\n.* RENAME .*|^[^-].* RENAME .*", script, flags=re.M) == [
        "-- Commented out: it may belong to another program; check its values first.\n" + statement
        for statement in (
            '-- ALTER TABLE "theirs" RENAME TO "verification_tokens";',
            '-- ALTER TABLE "users" RENAME COLUMN "isAgent" TO "isSuperuser";',
        )
    ]


def test_a_type_cure_rejects_long_texts_instead_of_truncating_them(migrated, status):
    migrated.execute(
        "ALTER TABLE auth_group ALTER name TYPE text COLLATE \"C\"; INSERT INTO auth_group (name) VALUES (repeat('x', 151))"
    )

    _, script = status()

    assert 'ALTER TABLE "auth_group" ALTER COLUMN "name" TYPE character varying(150) COLLATE pg_catalog."default";\n' in script
    assert psql(migrated, script) == (3, "ERROR:  value too long for type character varying(150)\n")


def test_a_type_cure_keeps_how_a_price_is_written(migrated, status):
    migrated.execute(
        f"ALTER TABLE price_history ALTER price TYPE real; ALTER DATABASE {migrated.name} SET extra_float_digits TO -15"
    )
    migrated.execute("""INSERT INTO price_history (id, origin, destination, price, provider, "departDate")
                        VALUES ('a', 'MIA', 'GRU', 712.55, 'amadeus', '2027-01-01'), ('b', 'MIA', 'GRU', 12345.67, 'amadeus', '2027-01-01')""")

    assert psql(migrated, status()[1]) == (0, "")
    assert migrated.execute("SELECT price FROM price_history ORDER BY id") == [(712.55,), (12345.67,)]


def test_a_missing_column_that_would_be_true_is_not_added_unread(migrated, status):
    migrated.execute('ALTER TABLE users DROP "isActive"; ALTER TABLE price_alerts DROP active')

    _, script = status()

    commented = re.findall("^-- Commented out: (.*)\n-- (.*)", script, flags=re.M)
    assert [(reason, cure) for reason, cure in commented if reason.startswith(GRANTS)] == [
        (f"{GRANTS}.", f'ALTER TABLE "{table}" ADD COLUMN "{name}" boolean DEFAULT true NOT NULL;')
        for table, name in (("price_alerts", "active"), ("users", "isActive"))
    ]
    assert {reason for reason, _ in commented} == {f"{GRANTS}.", "it needs price_alerts.active first."}
    assert psql(migrated, script) == (0, "")
    assert psql(migrated, agreed(status()[1])) == (0, "")
    assert status()[0] == 0


def test_cures_have_a_lock_timeout_except_concurrent_builds(migrated, status):
    migrated.execute(
        'ALTER TABLE wishlist_items ALTER notes SET NOT NULL; DROP INDEX "users_createdAt_idx", users_words_trgm_idx'
    )

    _, script = status()

    lines = script.splitlines()
    built = [number for number, line in enumerate(lines) if line.startswith("CREATE INDEX CONCURRENTLY")]
    ends = [next(number for number in range(begin, len(lines)) if lines[number].endswith(";")) for begin in built]
    assert [(lines[begin - 1], lines[end + 1]) for begin, end in zip(built, ends, strict=True)] == [
        ("SET lock_timeout TO '0';", LIMIT)
    ] * 2
    migrated.execute(f"ALTER DATABASE {migrated.name} SET statement_timeout TO '200ms'")  # Which the script does not keep.
    with open_transaction(migrated, "SELECT FROM wishlist_items"):
        assert psql(migrated, script) == (3, "ERROR:  canceling statement due to lock timeout\n")
    migrated.execute(f"ALTER DATABASE {migrated.name} RESET statement_timeout")
    assert psql(migrated, status()[1]) == (0, "")


def test_a_script_drops_what_a_failed_reindex_left_before_it_runs_it_again(migrated, status):
    migrated.execute('CREATE INDEX "users_createdAt_idx_ccnew" ON users ("createdAt")')
    migrated.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text ~ 'users_createdAt_idx'")

    _, script = status()

    assert re.findall("^(?:DROP|REINDEX) .*", script, flags=re.M) == [
        'DROP INDEX CONCURRENTLY "users_createdAt_idx_ccnew";',
        'REINDEX INDEX CONCURRENTLY "users_createdAt_idx";',
    ]
    assert psql(migrated, script) == (0, "")
    assert status()[0] == 0


def test_a_script_that_rebuilds_all_indexes_waits_for_their_readers(migrated, status):
    migrated.execute('CREATE COLLATION named FROM "C"; CREATE TABLE t (a text COLLATE named)')
    migrated.execute("UPDATE pg_collation SET collversion = '2.36' WHERE collname = 'named'")

    _, script = status()

    lines = script.splitlines()
    place = lines.index(f'REINDEX DATABASE CONCURRENTLY "{migrated.name}";')
    assert (lines[place - 1], lines[place + 1]) == ("SET lock_timeout TO '0';", LIMIT)
    code, said = psql(migrated, script)
    assert (code, said.removeprefix("WARNING:  cannot reindex system catalogs concurrently, skipping all\n")) == (0, "")
    assert status()[0] == 0


CONSTRAINTS = "SELECT count(*) = cardinality(names) FROM pg_constraint, (SELECT ARRAY[{}]) AS _ (names) WHERE conname = ANY (names) GROUP BY names"
INDEX = """SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = 'users'::regclass AND indisvalid AND indexrelid::regclass::text ~ 'users_createdAt_idx')"""
MESSAGES = 'ALTER TABLE ai_messages {} CONSTRAINT "ai_messages_conversationId_fkey"'
REFERS = 'FOREIGN KEY ("conversationId") REFERENCES ai_conversations (id) ON DELETE CASCADE ON UPDATE CASCADE'


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("damage", "remains"),
    [
        ("ALTER TABLE notifications ALTER priority TYPE varchar(99)",
         "SELECT column_default IS NOT NULL FROM information_schema.columns WHERE (table_name, column_name) = ('notifications', 'priority')"),
        ('ALTER TABLE notifications DROP CONSTRAINT "notifications_userId_fkey", ADD CONSTRAINT "notifications_userId_fkey" FOREIGN KEY ("userId") REFERENCES users',
         CONSTRAINTS.format("'notifications_userId_fkey'")),
        ("ALTER TABLE users DROP CONSTRAINT users_email_key, ADD CONSTRAINT users_email_key UNIQUE (email) DEFERRABLE", CONSTRAINTS.format("'users_email_key'")),
        ("ALTER TABLE users DROP CONSTRAINT users_email_key, ADD CONSTRAINT users_email_key CHECK (email <> '')", CONSTRAINTS.format("'users_email_key'")),
        ("ALTER TABLE django_admin_log DROP CONSTRAINT django_admin_log_action_flag_check, ADD CONSTRAINT django_admin_log_action_flag_check CHECK (action_flag > 0)",
         CONSTRAINTS.format("'django_admin_log_action_flag_check'")),
        (f"{MESSAGES.format('DROP')}; ALTER TABLE ai_conversations DROP CONSTRAINT ai_conversations_pkey, ADD CONSTRAINT ai_conversations_pkey"
         f" UNIQUE (id); {MESSAGES.format('ADD')} {REFERS}",
         CONSTRAINTS.format("'ai_conversations_pkey', 'ai_messages_conversationId_fkey'")),
        (f"{MESSAGES.format('DROP')}; ALTER TABLE ai_messages ALTER \"conversationId\" TYPE uuid USING NULL; ALTER TABLE ai_conversations ALTER id TYPE uuid USING NULL;"
         f" {MESSAGES.format('ADD')} {REFERS}", CONSTRAINTS.format("'ai_conversations_pkey', 'ai_messages_conversationId_fkey'")),
        ('DROP INDEX "users_createdAt_idx"; CREATE INDEX "users_createdAt_idx" ON users ("createdAt", id)', INDEX),
        ("ALTER TABLE price_history RENAME TO theirs; ALTER TABLE theirs DROP currency; CREATE VIEW price_history AS SELECT * FROM theirs",
         "SELECT to_regclass('price_history') IS NOT NULL"),
        ("CREATE PUBLICATION theirs FOR TABLE wishlist_items (notes)", "SELECT count(*) = 1 FROM pg_publication_tables WHERE tablename = 'wishlist_items'"),
        ("ALTER TABLE users ALTER phone TYPE varchar(99), ADD theirs text GENERATED ALWAYS AS (id || phone) STORED; CREATE INDEX theirs ON users (md5(theirs))",
         "SELECT count(*) = 1 FROM pg_index WHERE pg_get_indexdef(indexrelid) LIKE '%md5(theirs)%'"),
    ],
    ids=["default", "foreign key", "unique", "another constraint", "check", "key of a foreign key", "types of a foreign key", "index", "view", "publication", "generated column"],
)  # fmt: skip
def test_an_interrupted_script_leaves_what_it_replaces(migrated, status, damage, remains):
    migrated.execute(damage)
    _, script = status()

    for part in re.findall(r"^DO \S+ BEGIN\n(?:.*\n)*?END \S+;$|^(?!-- ).*;$", agreed(script), flags=re.M):
        assert psql(migrated, part) == (0, "")
        assert migrated.execute(remains) == [(True,)], part

    assert status() == (0, "-- Nothing to cure in the database.\n")


@pytest.mark.parametrize(
    ("given", "wanted", "keeps"),
    [
        ("text", "integer", False), ("text", "double precision", False), ("text", "jsonb", False), ("text", "text[]", False),
        ("text", "timestamp with time zone", False), ("character(3)", "text", False), ("text[]", "character varying(9)[]", True),
        ("text", "character varying(9)", True), ("integer", "text", True), ("integer[]", "bigint[]", True), ("jsonb", "text", False), ("money", "text", False), ("numeric(10,2)", "double precision", True),
        ("numeric(16,2)", "double precision", False), ("numeric(2,16)", "double precision", False), ("numeric", "double precision", False), ("timestamp(3) without time zone", "text", False),
    ],
)  # fmt: skip
def test_only_text_types_and_numbers_keep_the_spelling_of_a_value(given, wanted, keeps):
    lost = lost_by_type_change(Column("t", "c", wanted, nullable=True), Column("t", "c", given, nullable=True))

    assert (lost == "") is keeps
    assert (lost == "trailing blanks are removed") is given.startswith("character(")


PERSON = "00000000-0000-4000-8000-000000000001"


@pytest.mark.slow
@pytest.mark.parametrize("theirs", [False, True])
def test_columns_that_foreign_keys_join_change_their_type_together(migrated, theirs):
    """As Prisma creates them for `@db.Uuid`."""
    migrated.execute(f"""INSERT INTO users (id, email, "updatedAt") VALUES ('{PERSON}', 'a@example.com', now());
                         INSERT INTO sessions (id, "sessionToken", "userId", expires) VALUES ('s', 't', '{PERSON}', now())""")
    if theirs:
        migrated.execute("CREATE TABLE trip (user_id text REFERENCES users ON DELETE CASCADE)")
    before = migrated.execute("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY 1, 2")
    joined = migrated.execute("""SELECT k.conrelid::regclass::text, a.attname, k.conname, pg_get_constraintdef(k.oid) FROM pg_constraint AS k
        JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
        WHERE k.contype = 'f' AND k.confrelid = 'users'::regclass""")
    migrated.execute("; ".join(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"' for table, _, name, _ in joined))
    for table, column in [("users", "id"), *{(table, column) for table, column, *_ in joined}]:
        migrated.execute(f'ALTER TABLE {table} ALTER COLUMN "{column}" TYPE uuid USING "{column}"::uuid')
    migrated.execute("; ".join(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {how}' for table, _, name, how in joined))

    found = manage("dbstatus", "--sql", url=migrated.url)
    asked = "it changes the type of trip.user_id too: ask the owner first"
    assert (found.stdout.count("commented out"), found.stdout.count(asked)) == (1, theirs)
    ran = psql(migrated, agreed(found.stdout))
    after = manage("dbstatus", url=migrated.url)

    assert (found.returncode, ran) == (4, (0, ""))
    assert (after.returncode, after.stderr) == (0, ""), after.stdout
    assert (
        migrated.execute("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY 1, 2")
        == before
    )
    assert migrated.execute('SELECT id, "userId" FROM sessions') == [("s", PERSON)]
