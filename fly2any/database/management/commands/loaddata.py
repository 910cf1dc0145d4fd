from collections import Counter

from django.core.management.commands import loaddata
from django.core.serializers.base import DeserializationError
from django.db import connections

from fly2any.database.backup.required_backup import backup_required
from fly2any.database.errors import Refusal
from fly2any.database.management.arguments import add_consent, refuse_xml
from fly2any.database.migration.advisory_locks import MIGRATION_LOCK, hold
from fly2any.database.migration.losses import Loss, outcome_of, require_consent
from fly2any.database.schema.untrusted_code import refuse_untrusted_code


class Command(loaddata.Command):
    help = "Load fixtures; rows that exist are overwritten only with --yes."

    def add_arguments(self, parser):
        super().add_arguments(parser)
        add_consent(parser, "Overwrite existing rows")

    def handle(self, *fixtures, yes=False, without_backup=False, **options):
        require_backup = backup_required(without_backup=without_backup)
        if yes and require_backup:  # Before the transaction, which would keep its locks while the backup is read.
            require_backup = outcome_of(require_backup, connections[options["database"]])
        self.consent = {"yes": yes, "require_backup": require_backup}
        try:
            super().handle(*fixtures, **options)
        except DeserializationError as error:  # It quotes values.
            raise Refusal(
                f"A fixture cannot be read ({', '.join(fixtures)}): it is damaged, or belongs to another schema. Nothing was changed."
            ) from error

    def loaddata(self, fixture_labels):
        """Load all fixtures; raise Refusal, which rolls them back, if rows were overwritten without consent.

        Also raises it while a run of migrations, which may change the tables, holds the lock.
        """
        hold(connections[self.using], MIGRATION_LOCK)
        self.loaded: set[tuple] = set()
        self.models: set[type] = set()
        self.overwritten: Counter[str] = Counter()
        super().loaddata(fixture_labels)
        lost = [Loss(table, rows=rows) for table, rows in sorted(self.overwritten.items())]
        if lost:
            require_consent(connections[self.using], "Loading the fixtures would overwrite rows of", lost, **self.consent)

    def parse_name(self, fixture_name):
        name, format, compression = super().parse_name(fixture_name)
        refuse_xml(format)
        return name, format, compression

    def save_obj(self, obj):
        row = obj.object
        self.refuse_untrusted_code(row._meta)
        key = (type(row), row.pk)
        rows = type(row)._base_manager.using(self.using)
        exists = row.pk is not None and key not in self.loaded and rows.filter(pk=row.pk).exists()
        saved = super().save_obj(obj)
        if saved:
            self.loaded.add(key)
            if exists:
                self.overwritten[row._meta.db_table] += 1
        return saved

    def refuse_untrusted_code(self, meta):
        if meta.model not in self.models:
            self.models.add(meta.model)
            columns = [field.column for field in meta.local_concrete_fields if not field.primary_key]
            refuse_untrusted_code(connections[self.using], [meta.db_table], updates=columns)
            links = [field.m2m_db_table() for field in meta.local_many_to_many]
            refuse_untrusted_code(connections[self.using], links, deletes=True)
