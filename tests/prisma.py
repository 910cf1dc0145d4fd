"""Databases as Prisma creates them: the exact one, and the site's later one."""

import json
from pathlib import Path

PHASE7 = json.loads((Path(__file__).parent / "phase7.json").read_text())
MIGRATION = "20251110190400_add_phase7_features"

LEDGER = f"""
    CREATE TABLE _prisma_migrations (
        id VARCHAR(36) PRIMARY KEY NOT NULL, checksum VARCHAR(64) NOT NULL, finished_at TIMESTAMPTZ, migration_name VARCHAR(255) NOT NULL,
        logs TEXT, rolled_back_at TIMESTAMPTZ, started_at TIMESTAMPTZ NOT NULL DEFAULT now(), applied_steps_count INTEGER NOT NULL DEFAULT 0
    );
    INSERT INTO _prisma_migrations (id, checksum, finished_at, migration_name, applied_steps_count)
    VALUES ('a', 'b', now(), '{MIGRATION}', 1);
"""

SUPERSET = """
    CREATE TYPE "TripStatus" AS ENUM ('PLANNING', 'BOOKED');
    ALTER TABLE users
        ADD COLUMN "tripMatchCredits" integer NOT NULL DEFAULT 0, ADD COLUMN "tripMatchLifetimeEarned" integer NOT NULL DEFAULT 0,
        ADD COLUMN "tripMatchLifetimeSpent" integer NOT NULL DEFAULT 0, ADD COLUMN "tripMatchPendingCredits" integer NOT NULL DEFAULT 0,
        ADD COLUMN "tripMatchTier" text, ADD COLUMN "tripMatchBonusMultiplier" double precision NOT NULL DEFAULT 1.0,
        ADD COLUMN "fly2anyPoints" integer NOT NULL DEFAULT 0, ADD COLUMN "fly2anyPointsLocked" integer NOT NULL DEFAULT 0,
        ADD COLUMN "fly2anyPointsLifetime" integer NOT NULL DEFAULT 0, ADD COLUMN "fly2anyPointsRedeemed" integer NOT NULL DEFAULT 0,
        ADD COLUMN "liteApiGuestId" text, ADD COLUMN "hotelPointsBalance" integer NOT NULL DEFAULT 0,
        ADD COLUMN "hotelPointsPending" integer NOT NULL DEFAULT 0, ADD COLUMN "referralCode" text, ADD COLUMN "referredBy" text,
        ADD COLUMN "referralLevel" integer NOT NULL DEFAULT 0, ADD COLUMN "directReferralsCount" integer NOT NULL DEFAULT 0,
        ADD COLUMN "totalNetworkSize" integer NOT NULL DEFAULT 0;
    CREATE UNIQUE INDEX "users_liteApiGuestId_key" ON users ("liteApiGuestId");
    CREATE UNIQUE INDEX "users_referralCode_key" ON users ("referralCode");
    ALTER TABLE user_preferences ADD COLUMN notifications jsonb;
    ALTER TABLE recent_searches ADD COLUMN "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP;
    ALTER TABLE wishlist_items
        ADD COLUMN "productType" text NOT NULL DEFAULT 'flight', ADD COLUMN "productId" text, ADD COLUMN "hotelData" jsonb,
        ADD COLUMN "productData" jsonb, ALTER COLUMN "flightData" DROP NOT NULL;
    CREATE INDEX "wishlist_items_userId_productType_idx" ON wishlist_items ("userId", "productType");
""" + "".join(
    f"""
    CREATE TABLE trip_{number} (
        id text CONSTRAINT trip_{number}_pkey PRIMARY KEY, "userId" text NOT NULL, status "TripStatus" NOT NULL DEFAULT 'PLANNING',
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
    );
    CREATE INDEX "trip_{number}_userId_idx" ON trip_{number} ("userId");
    ALTER TABLE trip_{number} ADD CONSTRAINT "trip_{number}_userId_fkey"
        FOREIGN KEY ("userId") REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE;
    """
    for number in range(100)
)


def exact(*, ledger=True):
    """Return the statements by which Prisma's migration makes the 18 tables, in its own order: tables, indexes, foreign keys."""
    tables, indexes, foreign_keys = [], [], []
    for name, table in PHASE7.items():
        columns = [
            f'"{column["name"]}" {column["type"]}'
            + ("" if column["nullable"] else " NOT NULL")
            + (f" DEFAULT {column['default']}" if column["default"] else "")
            for column in table["columns"]
        ]
        if key := table["primary_key"]:
            columns.append(f'CONSTRAINT "{key["name"]}" {key["definition"]}')
        tables.append(f'CREATE TABLE "{name}" ({", ".join(columns)});')
        for index in table["indexes"]:
            unique = "UNIQUE " if index["unique"] else ""
            columns_ = ", ".join(f'"{column}"' for column in index["columns"])
            indexes.append(f'CREATE {unique}INDEX "{index["name"]}" ON "{name}" ({columns_});')
        foreign_keys += [
            f'ALTER TABLE "{name}" ADD CONSTRAINT "{fk["name"]}" {fk["definition"]};' for fk in table["foreign_keys"]
        ]
    return "\n".join([*tables, *indexes, *foreign_keys, LEDGER if ledger else ""])


def superset():
    """Return the statements that create the site's later database."""
    return exact() + SUPERSET


# A value of each type for row number i; times lie between 2020 and 2026, to the millisecond, as Prisma writes them.
VALUES = {
    "text": "'{column} ' || i",
    "integer": "i % 1000",
    "bigint": "1700000000000 + i",
    "double precision": "i * 1.25",
    "boolean": "i % 3 = 0",
    "jsonb": "jsonb_build_object('n', i, 'text', '✈ ' || i)",
    "text[]": "ARRAY['LH', 'row ' || i]",
    "timestamp(3) without time zone": "timestamp(3) '2020-01-01' + ((i::bigint * 7919 % 189000000) || '.' || (i % 1000) || ' seconds')::interval",
}
PARENTS = {"userId": "users", "conversationId": "ai_conversations"}


def fill(table, rows, first=1):
    """Return the INSERT of `rows` rows, with ids `<table> <number>`, that hang on the first rows of their parents."""
    columns = PHASE7[table]["columns"]
    values = [_value(table, column, rows) for column in columns]
    names = ", ".join(f'"{column["name"]}"' for column in columns)
    return f'INSERT INTO "{table}" ({names}) SELECT {", ".join(values)} FROM generate_series({first}, {first + rows - 1}) AS i;'


def _value(table, column, rows):
    name = column["name"]
    if name == "id":
        return f"'{table} ' || i"
    if any(fk["name"] == f"{table}_{name}_fkey" for fk in PHASE7[table]["foreign_keys"]):
        one_each = any(index["unique"] and index["columns"] == [name] for index in PHASE7[table]["indexes"])
        return f"'{PARENTS[name]} ' || {'i' if one_each else '1 + i % 10'}"
    value = VALUES[column["type"]].format(column=name)
    return f"CASE WHEN i % 5 > 0 THEN {value} END" if column["nullable"] and rows > 1 else value
