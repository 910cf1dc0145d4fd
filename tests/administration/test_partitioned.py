"""Pages of tables that are partitioned show the rows and the counts that they show of plain ones."""

import pytest
from django.contrib import admin
from django.db import connection

from fly2any.database.facts import Placement
from tests.administration.conftest import MODELS, address, lists_of
from tests.administration.test_kit import others

GROWING = [model for model in MODELS if getattr(model, "placement", None) is Placement.DISTRIBUTED]
PARTS = 3
PARTITION_SQL = """
    ALTER TABLE {table} RENAME TO plain;
    CREATE TABLE {table} (LIKE plain INCLUDING ALL) PARTITION BY HASH (id);
    {parts}
    INSERT INTO {table} SELECT * FROM plain;
    GRANT ALL ON {table} TO {role};
    DROP TABLE plain;
    ANALYZE {table}
"""
PART_SQL = "CREATE TABLE part_{part} PARTITION OF {table} FOR VALUES WITH (MODULUS {parts}, REMAINDER {part});"

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("filled"), pytest.mark.slow]


def partition(model, role):
    """Store the rows of a table in partitions by the hash of their id."""
    table = model._meta.db_table
    parts = "".join(PART_SQL.format(table=table, part=part, parts=PARTS) for part in range(PARTS))
    with connection.cursor() as cursor:
        cursor.execute(PARTITION_SQL.format(table=table, parts=parts, role=role))


def shown(client, url):
    """The status of a list, the keys of its rows, its count, and whether there are other pages."""
    response = client.get(url)
    if response.status_code != 200:
        return response.status_code, response.content[:300]
    listing = response.context["cl"]
    return 200, [row.pk for row in listing.result_list], str(listing.count), listing.has_later, listing.has_earlier


@pytest.mark.parametrize("model", GROWING, ids=lambda model: model._meta.db_table)
def test_every_page_of_a_partitioned_table_is_that_of_a_plain_one(model, client, member, app_role):
    assert len(GROWING) == 10
    client = member("superuser")
    row = others(model, client).order_by("pk").last()
    addresses = lists_of(client, model)
    pages = [address(model, name, row.pk) for name in ("change", "history", "delete")]
    if admin.site._registry[model].overview:
        pages.append(address(model, "overview", row.pk))

    def seen():
        exported = b"".join(client.post(address(model, "export")).streaming_content)
        titles = {
            url: (page.status_code, page.context and page.context.get("title")) for url in pages if (page := client.get(url))
        }
        return {url: shown(client, url) for url in addresses}, titles, sorted(exported.splitlines())

    plain = seen()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE none")
        partition(model, app_role)
        cursor.execute(f'SET LOCAL ROLE "{app_role}"')
        cursor.execute("SELECT count(DISTINCT tableoid) FROM " + model._meta.db_table)
        assert cursor.fetchone() == (PARTS,)

    lists, titles, exported = seen()
    assert {answer[0] for answer in lists.values()} | {status for status, _ in titles.values()} == {200}
    assert lists == plain[0]
    assert (titles, exported) == plain[1:]
