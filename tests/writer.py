"""A client that writes as the site does, to all 18 tables, and never stops."""

import itertools
import threading
import time

from tests.prisma import PARENTS, PHASE7

# The values that Prisma's client sends: the id, updatedAt and columns without a default; the database adds the rest.
VALUES = {"text": "new {column} {number}", "integer": 1, "bigint": 1_700_000_000_000, "double precision": 99.5, "boolean": True}
PAUSE = 0.002  # Seconds between two statements, because the tested code needs the processor too.
TIME = "2026-11-22T10:20:30.456"


class Writer(threading.Thread):
    """Inserts a row into each table, reads, updates and deletes it, round after round, over one connection of its own."""

    def __init__(self, database, name="writer"):
        super().__init__(name=name, daemon=True)
        self.database = database
        self.halt = threading.Event()
        self.errors = []
        self.waits = []  # (seconds, table)
        self.rounds = 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.halt.set()
        self.join(60)
        assert not self.is_alive()

    @property
    def longest(self):
        return max(self.waits)

    def run(self):
        with self.database.connect(application_name="the site", prepare_threshold=None) as client:
            for number in itertools.count():
                if self.halt.is_set():
                    return
                for table in PHASE7:
                    self.write(client, table, f"{self.name} {number}")
                self.ask(client, "users", "DELETE FROM users WHERE id = %s", [f"{self.name} {number} users"])
                self.rounds += 1

    def write(self, client, table, number):
        names = {column["name"] for column in PHASE7[table]["columns"]}
        row = {
            column["name"]: self.value(table, column, number)
            for column in PHASE7[table]["columns"]
            if column["name"] in ("id", "updatedAt") or (column["default"] is None and not column["nullable"])
        }
        columns, places = ", ".join(f'"{name}"' for name in row), ", ".join(["%s"] * len(row))
        self.ask(client, table, f'INSERT INTO "{table}" ({columns}) VALUES ({places})', list(row.values()))
        key = "id" if "id" in names else "identifier"
        times = [column["name"] for column in PHASE7[table]["columns"] if column["type"].startswith("timestamp")]
        for name in times[:1]:
            self.ask(client, table, f'UPDATE "{table}" SET "{name}" = %s WHERE "{key}" = %s', [TIME, row[key]])
        self.ask(client, table, f'SELECT * FROM "{table}" WHERE "{key}" = %s', [row[key]])

    def value(self, table, column, number):
        name, kind = column["name"], column["type"]
        if name == "id":
            return f"{number} {table}"
        if any(fk["name"] == f"{table}_{name}_fkey" for fk in PHASE7[table]["foreign_keys"]):
            return f"{number} {PARENTS[name]}"
        if kind.startswith("timestamp"):
            return TIME
        if kind == "jsonb":
            return "{}"
        value = VALUES[kind]
        return value.format(column=name, number=number) if isinstance(value, str) else value

    def ask(self, client, table, statement, parameters):
        begun = time.monotonic()
        try:
            client.execute(statement, parameters)
        except Exception as error:
            self.errors.append(f"{table}: {type(error).__name__}: {error}")
        self.waits.append((time.monotonic() - begun, table))
        time.sleep(PAUSE)
