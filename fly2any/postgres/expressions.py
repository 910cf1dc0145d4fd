"""Database defaults and index expressions of the Fly2Any schema. Migrations import this path: it is frozen."""

from itertools import zip_longest

from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models.functions import Cast


class CurrentTimestamp(models.Func):
    """CURRENT_TIMESTAMP, the start of the transaction, as Prisma's `@default(now())` writes it.

    Django's Now() is STATEMENT_TIMESTAMP(), another definition in the catalogue.
    """

    template = "CURRENT_TIMESTAMP"
    output_field = models.DateTimeField()


def random_text_id():
    """Return the expression `gen_random_uuid()::text`."""
    return Cast(RandomUUID(), models.TextField())


class Words(models.Func):
    """Text columns, concatenated, each preceded by a space; NULL is an empty text."""

    output_field = models.TextField()

    def as_sql(self, compiler, connection, **extra):  # type: ignore[override]
        parts = [compiler.compile(source) for source in self.source_expressions]
        text = " || ".join(f"' ' || COALESCE({sql}, '')" for sql, _ in parts)
        return f"({text})", [value for _, values in parts for value in values]


class Folded(models.Func):
    """A text in lower case, without the accents of Latin letters.

    It uses only immutable functions without an extension, so an index can contain it. TRANSLATE compares each character
    with its whole list, so it is skipped for ASCII text.
    """

    output_field = models.TextField()
    accented = "áàâãäåāăąçćĉċčďđèéêëēĕėęěĝğġģĥħìíîïĩīĭįıĵķĺļľŀłñńņňòóôõöøōŏőŕŗřśŝşšșţťŧțùúûüũūŭůűųŵýÿŷźżž"
    bare = "aaaaaaaaacccccddeeeeeeeeegggghhiiiiiiiiijklllllnnnnooooooooorrrsssssttttuuuuuuuuuuwyyyzzz"
    marks = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0326\u0327\u0328"  # Combining marks, which are removed.
    template = (
        "CASE WHEN OCTET_LENGTH(%(expressions)s) = LENGTH(%(expressions)s) THEN LOWER(%(expressions)s)"
        f" ELSE TRANSLATE(LOWER(%(expressions)s), '{accented}{marks}', '{bare}') END"
    )

    def as_sql(self, compiler, connection, **extra):  # type: ignore[override]
        sql, values = super().as_sql(compiler, connection, **extra)
        return f"({sql})", [*values] * 4


FOLDING = {ord(letter): bare for letter, bare in zip_longest(Folded.accented + Folded.marks, Folded.bare)}


def fold(text: str) -> str:
    """Return what PostgreSQL computes for Folded(text)."""
    return text.lower().translate(FOLDING)
