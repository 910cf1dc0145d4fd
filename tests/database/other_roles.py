"""Objects that another role plants where ours are looked up, and a run of migrations that could hit them."""

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
