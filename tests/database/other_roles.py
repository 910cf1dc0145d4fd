"""Another role with a schema of its own, objects that it plants where ours are looked up, and a run that could hit them."""

from contextlib import contextmanager

from fly2any.database.migration import journal
from fly2any.database.migration.run import migrating
from fly2any.database.progress import Progress

HARMLESS = "CREATE FUNCTION public.caught() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'a' $$"
PLANTED = f"""
    {HARMLESS};
    ALTER FUNCTION public.caught() OWNER TO {{role}}; GRANT CREATE ON SCHEMA public TO {{role}};
"""


def migrates(connection, folder):
    with migrating(connection.alias, patience=1, progress=Progress()) as run:
        journal.ensure(run.connection)
        with journal.recorded(run.connection, "travel.0001_initial", "faked"):
            pass


@contextmanager
def other_role(database, *statements, schema="mal"):
    """A role that has a schema of its own and may refer to users; it runs these statements. Yield its name."""
    with database.role(
        f"CREATE SCHEMA {schema} AUTHORIZATION {{role}}",
        "GRANT REFERENCES ON users TO {role}",
        "GRANT USAGE ON SCHEMA public TO {role}",
    ):
        role = f"{database.name}_role"
        with database.connect() as client:
            client.execute(f"SET SESSION AUTHORIZATION {role}")
            for statement in statements:
                client.execute(statement)
        yield role
