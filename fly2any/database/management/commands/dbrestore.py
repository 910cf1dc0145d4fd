from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.backup import render
from fly2any.database.backup.creatable_extensions import require_extensions
from fly2any.database.backup.disk_space import note as room_note
from fly2any.database.backup.latest import find
from fly2any.database.backup.manifest import other_homes
from fly2any.database.backup.not_dumped import read_attached
from fly2any.database.backup.owners import describe_untried, require_owners
from fly2any.database.backup.restore import is_used, require_name, restore_into, restore_over
from fly2any.database.backup.store import store_at
from fly2any.database.backup.swap import require_swappable
from fly2any.database.backup.tablespaces import describe_unusable
from fly2any.database.clock import read_clock
from fly2any.database.database_identity import read_origin
from fly2any.database.errors import Refusal
from fly2any.database.maintenance import render as render_archive
from fly2any.database.maintenance.run import archives_of
from fly2any.database.management.arguments import add_database
from fly2any.database.migration.advisory_locks import MAINTENANCE_LOCK, PATIENCE, advisory_lock
from fly2any.database.progress import Terminal
from fly2any.database.server import read_home
from fly2any.database.sql import quote
from fly2any.database.terminal_text import one_line


class Command(BaseCommand):
    help = "Restore a backup: into another database, or in place of the one in use."
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument("name", metavar="NAME", help="The backup's name, or `latest` for the newest verified one.")
        add_database(parser, "to restore")
        where = parser.add_mutually_exclusive_group()
        where.add_argument(
            "--into", metavar="DATABASE", help="Restore into this database on the same server; it is created if missing."
        )
        where.add_argument("--archive", action="store_true", help="NAME is an archive of `dbmaintain`: insert its rows again.")
        parser.add_argument(
            "--yes",
            action="store_true",
            help="Replace the database in use; without it, only an empty one is replaced. With --archive: also load one that another server wrote.",
        )
        parser.add_argument(
            "--unsigned",
            action="store_true",
            help="Accept a backup or archive even if no key of this installation signed it.",
        )

        parser.add_argument(
            "--trust",
            metavar="ROLE",
            action="append",
            default=[],
            help="Restore even if code of this role runs as the role that restores; may be repeated.",
        )
        parser.add_argument(
            "--without",
            metavar="ROLE",
            action="append",
            default=[],
            help="Leave out the objects of this role, and those that depend on them; may be repeated.",
        )
        parser.add_argument(
            "--without-extension",
            metavar="NAME",
            dest="extensions",
            action="append",
            default=[],
            help="Leave out this extension and the rows of its tables; may be repeated.",
        )

    def handle(self, *, name, database, into, archive, yes, unsigned, trust, without, extensions, **options):
        if archive:
            self.put_back(connections[database], name, unsigned=unsigned, others=yes)
            return
        if yes and into is not None:
            raise Refusal("--into restores alongside the database in use, and --yes replaces it: use one of them.")
        store, connection, progress = store_at(settings.BACKUPS["location"]), connections[database], Terminal(self.stderr)
        origin, used = read_origin(connection), is_used(connection)
        manifest = find(
            store, name, of=origin, good=True, others=into is not None or not used,
            now=read_clock(connection).now(), progress=progress, unsigned=unsigned,
        )  # fmt: skip
        self.stdout.write(f"{render.one(manifest, store.place)}\n{render.verdict(manifest)}")
        if not manifest.is_of(origin):
            self.stdout.write(f"Origin    a database named {origin.database} on another server.")
        current = connection.settings_dict["NAME"]
        choices = {"trust": trust, "without": without, "extensions": extensions}
        less = described(without, extensions)
        of = " of the rest" if less else ""
        if into is not None:
            require_name(connection, into)
            kept = restore_into(connection, into, store, manifest, progress, **choices)
            self.stdout.write(f"Restored  into {into}{less}: every row{of} was compared and matches.")
            if kept.name:
                self.report_kept("the empty database", kept)
            self.report_erasures(manifest, kept.erasures)
            self.report_staff(kept.staff, replaced=False)
            return
        self.report_notes(connection, manifest, is_shown=used and not yes)
        if used and not yes:
            require_swappable(connection, current)
            require_owners(connection, manifest, trust=trust, without=without)
            require_extensions(connection, manifest, without=extensions)
            self.stdout.write(
                f"Nothing was changed. `manage.py dbrestore {manifest.name} --yes` restores into a new database, compares it, and swaps it with"
                f" {current}: whatever has been written since {manifest.taken:%Y-%m-%d %H:%M} UTC is then only in the old one, which is kept under another"
                " name. --into NAME restores into another database instead."
            )
            return
        kept = restore_over(connection, store, manifest, progress, empty=not yes, **choices)
        self.stdout.write(f"Restored  {current}{less}: every row{of} was compared and matches.")
        self.report_kept("the old database", kept)
        self.report_erasures(manifest, kept.erasures)
        self.report_staff(kept.staff)

    def report_notes(self, connection, manifest, *, is_shown):
        notes = (
            of_other_homes(manifest, connection),
            *read_attached(connection).notes(),
            describe_untried(connection, manifest),
            room_note(connection, manifest),
            describe_unusable(connection) if is_shown else "",  # The restore reports it itself.
        )
        for note in filter(None, notes):
            self.stdout.write(f"Note      {note}")

    def report_erasures(self, manifest, erasures):
        self.stdout.write(
            f"Erasures  since {manifest.taken:%Y-%m-%d %H:%M} UTC are not in the backup: run `dbperson erase` again for each."
        )
        if erasures.people:
            people = ", ".join(map(one_line, erasures.people))
            self.stdout.write(
                f"Erased    in the admin, by the access records: {people}. For each: `manage.py dbperson erase ID --yes`."
            )
        if erasures.error:
            self.stdout.write(
                f"Erased    in the admin: unknown, because the old database's access records could not be read ({erasures.error})."
            )

        if erasures.uncopied:
            self.stdout.write(
                f"Erased    in the admin: the certificates are only in the old database ({erasures.uncopied}). Save them before you drop it."
            )

    def report_staff(self, staff, *, replaced=True):
        if staff.error:
            self.stdout.write(
                f"Staff     could not be signed out, and were not compared with the old database ({staff.error}): check `manage.py dbstaff --list`,"
                " and sign all staff out of the admin."
            )
            return
        again = ": all staff must sign in again" if replaced else ""
        self.stdout.write(f"Sessions  of the admin in the backup were ended ({staff.ended:,}){again}.")
        if staff.uncompared:
            self.stdout.write(
                f"Staff     could not be compared with the old database ({staff.uncompared}): check `manage.py dbstaff --list`."
            )
        if staff.changed:
            self.stdout.write(
                f"Staff     {', '.join(map(one_line, staff.changed))}: privileges, password or second factors have reverted to those in the backup. Correct"
                " them: `manage.py dbstaff EMAIL --remove` or --role, `manage.py changepassword EMAIL`, and *Second factor* and *Groups* in the admin."
            )

    def report_kept(self, what, kept):
        if kept.filled:
            self.stdout.write(
                f"Kept      the database as {kept.name}. It was empty, and tables were created in it during the restore."
            )
        else:
            self.stdout.write(
                f"Kept      {what} as {kept.name}. When it is no longer needed: DROP DATABASE {quote(kept.name)};"
            )

    def put_back(self, connection, name, *, unsigned, others):
        archives, progress = archives_of(connection), Terminal(self.stderr)
        if archives is None:
            raise Refusal(
                "ARCHIVE_LOCATION is not set, so there are no archives: set it to their folder, or s3://bucket/folder."
            )
        with connection.direct():
            connection.ensure_connection()
            with advisory_lock(connection, MAINTENANCE_LOCK, patience=PATIENCE, say=progress.say):
                archive, loaded = archives.load(connection, name, progress, unsigned=unsigned, others=others)
        for one in loaded:
            self.stdout.write(render_archive.loaded(one, archive))
        if archive.table in settings.RETENTION["days"]:
            self.stdout.write(
                f"Retention  is on for {archive.table}: raise its number of days in RETENTION before the next run of dbmaintain, which otherwise deletes the old rows again."
            )


def described(without, extensions):
    """Return what a restore leaves out, as " without …", "" if it is nothing."""
    roles = [f"the objects of {', '.join(without)}"] if without else []
    parts = [*roles, *([f"the extension {', '.join(extensions)}"] if extensions else [])]
    return f" without {' and '.join(parts)}" if parts else ""


def of_other_homes(manifest, connection):
    """Return a sentence about installations in other schemas, whose rows a restore replaces too, "" without any."""
    schemas = ", ".join(map(one_line, other_homes(manifest, read_home(connection)[0])))
    return (
        schemas
        and f"The backup also has such tables in other schemas ({schemas}): the restore replaces those in use there too."
    )
