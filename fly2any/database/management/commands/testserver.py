from django.core.management.commands import testserver

from fly2any.database.migration.reset import refuse_test_database


class Command(testserver.Command):
    def handle(self, *fixtures, **options):
        refuse_test_database("testserver")
        super().handle(*fixtures, **options)
