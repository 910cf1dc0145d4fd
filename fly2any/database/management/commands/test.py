from django.core.management.commands import test

from fly2any.database.migration.reset import refuse_test_database


class Command(test.Command):
    def handle(self, *labels, **options):
        refuse_test_database("test")
        super().handle(*labels, **options)
