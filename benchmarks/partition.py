"""partitions by month against the plain table with retention, on twelve months of prices: what time partitions would bring, and cost"""

from datetime import UTC, datetime
from statistics import median
from time import monotonic

from benchmarks.measure import migrated_database, seconds, show, sized
from fly2any.database.progress import Progress
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import sweep

MONTHS, ROWS = 12, sized(250_000, 1_000)  # A month.

ROWS_SQL = """
    INSERT INTO {table} (id, origin, destination, "departDate", price, currency, provider, timestamp)
    SELECT {month} || '-' || n, chr(65 + n %% 26) || chr(65 + n / 26 %% 26) || 'A', chr(65 + n / 7 %% 26) || chr(65 + n / 11 %% 26) || 'B',
           to_char(date '2026-01-01' + (n %% 300)::int, 'YYYY-MM-DD'), n %% 1000, 'USD', 'mock',
           make_timestamptz(2025, {month}, 1, 0, 0, 0, 'UTC') + n * interval '10 seconds'
    FROM generate_series(0, {last}) AS n
"""
ROUTE_SQL = """SELECT price FROM {table} WHERE origin = 'ABA' AND destination = 'ABB' AND "departDate" = '2026-02-01' """
NEWEST_SQL = "SELECT * FROM {table} ORDER BY timestamp DESC LIMIT 100"
ONE_SQL = "SELECT * FROM {table} WHERE id = '6-777'"


def run():
    with migrated_database() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE parts (LIKE price_history INCLUDING DEFAULTS) PARTITION BY RANGE (timestamp)")
        cursor.execute("ALTER TABLE parts ADD PRIMARY KEY (id, timestamp)")  # It must contain the time.
        cursor.execute('CREATE INDEX ON parts (origin, destination, "departDate"); CREATE INDEX ON parts (timestamp)')
        for month in range(1, MONTHS + 1):
            until = f"{2025 + month // 12}-{month % 12 + 1:02}-01 UTC"
            cursor.execute(
                f"CREATE TABLE part_{month} PARTITION OF parts FOR VALUES FROM ('2025-{month:02}-01 UTC') TO ('{until}')"
            )
        filled = {"price_history": [], "parts": []}
        for month in range(1, MONTHS + 1):
            for table, taken in filled.items():
                statement = ROWS_SQL.format(table=table, month=month, last=ROWS - 1)
                taken.append(seconds(lambda statement=statement: cursor.execute(statement, ())))
        cursor.execute("VACUUM (ANALYZE) price_history, parts")
        for what, statement in (
            ("a route and a day", ROUTE_SQL),
            ("the newest hundred", NEWEST_SQL),
            ("one row by its id", ONE_SQL),
        ):
            times = {table: timed(cursor, statement.format(table=table)) for table in filled}
            show(f"{what}, partitioned", times["parts"], times["price_history"], "plain")
        show(f"inserting {ROWS:,} rows, partitioned", median(filled["parts"]), median(filled["price_history"]), "plain")
        before = datetime(2025, 2, 1, tzinfo=UTC)
        options = {"before": before, "archives": None, "deadline": monotonic() + 3600, "progress": Progress()}
        dropped = seconds(lambda: cursor.execute("DROP TABLE part_1"))
        bare = seconds(
            lambda: cursor.execute(
                "DELETE FROM price_history WHERE timestamp >= '2025-02-01 UTC' AND timestamp < '2025-03-01 UTC'"
            )
        )
        swept = seconds(lambda: sweep(connection, RULES["price_history"], **options))
        vacuumed = seconds(lambda: cursor.execute("VACUUM (ANALYZE) price_history"))
    show(f"a month gone: retention, {ROWS:,} rows", swept, bare, "one DELETE of as many")
    show("a month gone: DROP of its partition", dropped, swept + vacuumed, "retention and its VACUUM")


def timed(cursor, statement):
    def ask():
        cursor.execute(statement)
        cursor.fetchall()

    ask()
    return median(seconds(ask) for _ in range(31))
