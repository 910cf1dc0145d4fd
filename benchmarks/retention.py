"""retention of old prices, archived and vacuumed, against bare COPY to a file, DELETE and VACUUM of as many"""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

from benchmarks.measure import migrated_database, seconds, show, sized
from fly2any.database.backup.store import Folder
from fly2any.database.progress import Progress
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import sweep

ROWS, OLD = sized((10_000_000, 1_000_000), (10_000, 2_000))
NEWEST = datetime(2026, 5, 1, tzinfo=UTC)

# One row every ten seconds, in the order of time, as the price monitor writes them.
ROWS_SQL = """
    INSERT INTO price_history (id, origin, destination, "departDate", price, currency, provider, timestamp)
    SELECT 'c' || lpad(to_hex(n), 11, '0') || left(md5(n::text), 13), chr(65 + n %% 26) || chr(65 + n / 26 %% 26) || 'A',
           chr(65 + n / 7 %% 26) || chr(65 + n / 11 %% 26) || 'B', to_char(date '2026-01-01' + (n %% 300)::int, 'YYYY-MM-DD'),
           n %% 1000, 'USD', 'mock', %(newest)s::timestamptz - interval '10 seconds' * (%(rows)s - n)
    FROM generate_series(1, %(rows)s) AS n
"""


def run():
    with migrated_database() as connection, connection.cursor() as cursor, tempfile.TemporaryDirectory() as folder:
        cursor.execute(ROWS_SQL, {"rows": ROWS, "newest": NEWEST})
        cursor.execute("VACUUM ANALYZE price_history")
        cursor.execute("CHECKPOINT")
        vacuum = "VACUUM price_history"
        oldest = NEWEST - timedelta(seconds=10 * ROWS)

        def before(part):
            return oldest + timedelta(seconds=10 * OLD) * part

        def bare():
            query = "COPY (SELECT * FROM price_history WHERE timestamp < %s) TO STDOUT"
            with Path(folder, "bare").open("wb") as file, cursor.copy(query, [before(1)]) as rows:
                for data in rows:
                    file.write(data)
            cursor.execute("DELETE FROM price_history WHERE timestamp < %s", [before(1)])
            cursor.execute(vacuum)

        def ours():
            archives = Archives(Folder(f"{folder}/archives"), "benchmark")
            options = {"archives": archives, "deadline": monotonic() + 3600, "progress": Progress()}
            swept.append(sweep(connection, RULES["price_history"], before=before(2), **options))
            cursor.execute(vacuum)

        swept = []
        peer = seconds(bare)
        taken = seconds(ours)
        [result] = swept
        size = sum(path.stat().st_size for path in Path(folder, "archives").iterdir())
    show(f"{result.removed:,} of {ROWS:,} prices", taken, peer, "COPY, DELETE and VACUUM", "aim: ≤ 1.5")
    print(f"    in {len(result.archives)} archives, {size / 1e6:,.0f} MB")
