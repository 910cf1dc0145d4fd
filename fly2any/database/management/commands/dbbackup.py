import sys

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS, connections

from fly2any.database.backup import render
from fly2any.database.backup.restore import check, find
from fly2any.database.backup.retention import prune
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import backups, take
from fly2any.database.terminal import Terminal


class Command(BaseCommand):
    help = "Take a backup of the database; with --verify also restore it beside, and compare every row."
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument(
            "--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections), help="Which of DATABASES to back up."
        )
        parser.add_argument("--verify", action="store_true", help="Restore the backup into a scratch database, and compare it.")
        parser.add_argument("--prune", action="store_true", help="Then remove those that BACKUP_KEEP does not keep.")
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument("--check", metavar="NAME", help="Take none, and verify this one.")
        instead.add_argument("--list", action="store_true", help="Take none, and list those there are.")
        parser.add_argument("--format", default="text", choices=["text", "json"], help="How to print it.")

    def handle(self, *, database, verify, prune: bool, check: str, list: bool, format, **options):
        store, progress = store_at(settings.BACKUPS["location"]), Terminal(self.stderr)
        if list:
            found = backups(store)
            self.stdout.write(render.as_data(found) if format == "json" else "\n".join(render.many(found, store.place)))
        else:
            found = [self.judge(connections[database], store, check, verify, progress)]
            self.stdout.write(render.as_data(found) if format == "json" else render.one(found[0], store.place))
        if prune:
            self.prune(store, format)
        sys.exit(4 if not list and found[0].state == "bad" else 0)

    def judge(self, connection, store, name, verify, progress):
        manifest = find(store, name) if name else take(connection, store, progress)
        return check(connection, store, manifest, progress) if name or verify else manifest

    def prune(self, store, format):
        removed = prune(store, backups(store))
        if format == "text":
            self.stdout.write(f"Pruned    {', '.join(manifest.name for manifest in removed) or 'nothing'}")
