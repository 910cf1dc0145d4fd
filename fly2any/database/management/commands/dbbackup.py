import sys

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.backup import render
from fly2any.database.backup.encryption import keys_in
from fly2any.database.backup.inventory import backups
from fly2any.database.backup.latest import find
from fly2any.database.backup.pruning import prune as remove_superfluous
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check as judge
from fly2any.database.clock import read_clock, time_or_own
from fly2any.database.database_identity import read_origin
from fly2any.database.errors import Refusal
from fly2any.database.exit_codes import ExitCode
from fly2any.database.management.arguments import add_database
from fly2any.database.management.output import lasting
from fly2any.database.progress import Terminal


class Command(BaseCommand):
    help = "Take a backup of the database; with --verify, also restore it on a temporary server and compare every row."
    requires_system_checks = []

    def add_arguments(self, parser):
        add_database(parser, "to back up")
        parser.add_argument("--verify", action="store_true", help="Restore the backup on a temporary server, and compare it.")
        parser.add_argument("--prune", action="store_true", help="Afterwards, remove old backups according to BACKUP_KEEP.")
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument("--check", metavar="NAME", help="Take no backup, and verify NAME (`latest`: the newest).")
        instead.add_argument("--list", action="store_true", help="Take no backup, and list the existing ones.")
        parser.add_argument("--format", default="text", choices=["text", "json"], help="How to print the result.")

    def handle(self, *, database, verify, prune, check, list, format, **options):
        if verify and list:
            raise Refusal("--verify cannot be combined with --list: omit it.")
        if prune and not (verify or check or list):
            raise Refusal("--prune removes nothing after a backup that was not verified: add --verify.")
        with lasting(self.stdout.write) as say:
            code = self.back_up(say, connections[database], verify, prune, check, list, format)
        sys.exit(code)

    def back_up(self, write, connection, verify, prune, check, list, format):
        store = store_at(settings.BACKUPS["location"])
        say = write if format == "text" else lambda text: None
        kept = backups(store) if list else None
        found = kept.manifests if kept else (self.one(connection, store, verify, check, say),)
        if kept:
            now = self.now(connection)
            say("\n".join(render.many(kept, store.place, now)))
        failed = (verify or check) and found[0].state != "good"
        removed = []
        if prune and not failed:
            verified = "" if kept else found[0].name
            removed = remove_superfluous(store, connection, Terminal(self.stderr), verified=verified)
        if prune:
            nothing = "nothing, because this backup is not verified" if failed else "nothing"
            say(f"Pruned    {', '.join(manifest.name for manifest in removed) or nothing}")
        if format == "json":
            write(render.as_data(found, removed, now if kept else self.now(connection)))
        return ExitCode.FOUND if failed and found[0].state == "bad" else ExitCode.REFUSED if failed else ExitCode.OK

    def now(self, connection):
        now, reason = time_or_own(connection)
        if reason:
            Terminal(self.stderr).say(f"Ages are by this machine's clock, because the server cannot be reached: {reason}")
        return now

    def one(self, connection, store, verify, name, say):
        if verify and not name and settings.BACKUPS["recipient"]:  # Better now than when it is taken.
            if not settings.BACKUPS["identity_file"]:
                raise Refusal(
                    "Backups are encrypted (BACKUP_RECIPIENT is set), so --verify needs the key: set BACKUP_IDENTITY_FILE to the file with the"
                    " key that age-keygen created; or omit --verify and --prune, and run `dbbackup --check latest --prune` where the key is."
                )
            keys_in(settings.BACKUPS["identity_file"])
        progress = Terminal(self.stderr)
        manifest = (
            find(
                store,
                name,
                of=read_origin(connection),
                good=False,
                others=True,
                now=read_clock(connection).now(),
                progress=progress,
                unsigned=True,
            )
            if name
            else take(connection, store, progress)
        )
        say(render.one(manifest, store.place))
        manifest = judge(connection, store, manifest, progress) if name or verify else manifest
        say(render.verdict(manifest))
        return manifest
