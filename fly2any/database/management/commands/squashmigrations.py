from django.core.management.commands import squashmigrations
from django.db.migrations.writer import MigrationWriter


class Writer(MigrationWriter):
    def as_string(self):
        """Return the migration's source, not atomic if it builds an index concurrently, which Django's command ignores."""
        source = super().as_string()
        concurrent = any(getattr(operation, "atomic", True) is False for operation in self.migration.operations)
        return (
            source.replace("(migrations.Migration):\n", "(migrations.Migration):\n\n    atomic = False\n", 1)
            if concurrent
            else source
        )


class Command(squashmigrations.Command):
    help = "Write one migration in place of several; not atomic where one of them builds an index concurrently."

    def handle(self, **options):
        djangos, squashmigrations.MigrationWriter = squashmigrations.MigrationWriter, Writer  # type: ignore[attr-defined]
        try:  # It has no other hook.
            super().handle(**options)
        finally:
            squashmigrations.MigrationWriter = djangos  # type: ignore[attr-defined]
