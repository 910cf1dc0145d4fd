"""The site's statements on a distributed database, and those that Citus rejects, as docs/reference/dbdistribute.md lists them."""

from psycopg import Error

from tests.writer import Writer

SEQUENTIAL = "-c citus.multi_shard_modify_mode=sequential"
USER = """INSERT INTO users (id, email, "updatedAt") VALUES ('u', 'u@example.com', now())"""
NOTIFIED = """INSERT INTO notifications (id, "userId", type, title, message) VALUES ('n', 'u', 'a', 'b', 'c')"""
ALERT = """
    INSERT INTO price_alerts (id, "userId", origin, destination, "departDate", "currentPrice", "targetPrice", "updatedAt")
    VALUES ('a', 'u', 'JFK', 'LAX', '2026-01-01', 2, 1, now())
"""
CHAT = """INSERT INTO ai_conversations (id, "sessionId", "userId", metadata, "updatedAt") VALUES ('c', 's', 'u', '{}', now())"""
MESSAGE = """INSERT INTO ai_messages (id, "conversationId", role, content, timestamp) VALUES ('m', 'c', 'user', 'hello', 1)"""
# Prisma's transactions: nested writes, upserts, updateMany and deleteMany, and a write of the user after its rows.
TRANSACTIONS = {
    "nested write": [f"{USER} RETURNING id", f"{NOTIFIED} RETURNING id", ALERT, CHAT, f"{MESSAGE} RETURNING id"],
    "upsert by a unique column": [f"{USER} ON CONFLICT (email) DO UPDATE SET bio = 'x' RETURNING id"],
    "upsert by id": [f"{ALERT} ON CONFLICT (id) DO UPDATE SET \"targetPrice\" = 3 WHERE price_alerts.id = 'a' RETURNING id"],
    "upsert of a conversation": [f"""{CHAT} ON CONFLICT ("sessionId") DO UPDATE SET status = 'active' RETURNING id"""],
    "increment": ["""UPDATE price_alerts SET "notificationCount" = "notificationCount" + 1 WHERE id = 'a' RETURNING id"""],
    "updateMany, then the user": [
        """UPDATE notifications SET read = true WHERE "userId" = 'u' AND NOT read""",
        "UPDATE users SET bio = 'x' WHERE id = 'u'",
    ],
    "rows, then the user": ["""SELECT id FROM notifications WHERE "userId" = 'u'""", "UPDATE users SET bio = 'y' WHERE id = 'u'"],
    "messages, then the conversation": [
        """UPDATE ai_messages SET content = 'x' WHERE "conversationId" = 'c'""",
        "UPDATE ai_conversations SET status = 'completed' WHERE id = 'c'",
    ],
    "filter by the user": ["""
        UPDATE notifications SET read = true WHERE id IN (
            SELECT n.id FROM notifications AS n LEFT JOIN users AS u ON u.id = n."userId" WHERE u.email = 'u@example.com')
    """],
    "savepoint": ["SAVEPOINT s", "DELETE FROM notifications WHERE id = 'n'", "ROLLBACK TO SAVEPOINT s"],
    "deleteMany, then the user": ["""DELETE FROM price_alerts WHERE "userId" = 'u'""", "DELETE FROM users WHERE id = 'u' RETURNING id"],
}  # fmt: skip
REJECTED = {
    "a change of the id": ("UPDATE price_alerts SET id = 'b' WHERE id = 'a'", "modifying the partition value"),
    "FOR UPDATE of several rows": ("SELECT id FROM price_alerts WHERE active FOR UPDATE", "FOR UPDATE/SHARE"),
    "a correlated subquery of a user": (
        'SELECT u.id FROM users AS u WHERE EXISTS (SELECT 1 FROM notifications AS n WHERE n."userId" = u.id)',
        "correlated subqueries are not supported",
    ),
    "a lateral join": (
        'SELECT u.id, n.id FROM users AS u LEFT JOIN LATERAL (SELECT id FROM notifications WHERE "userId" = u.id LIMIT 5) AS n ON true',
        "lateral outer join",
    ),
    "an empty list of columns": ("SELECT EXISTS (SELECT FROM notifications)", "a column definition list is required"),
    "a join of two distributed tables": (
        'SELECT n.id FROM notifications AS n JOIN price_alerts AS a ON a."userId" = n."userId"',
        "requires repartitioning",
    ),
    "a recursive query": (
        """WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r, price_alerts WHERE n < 3) SELECT n FROM r""",
        "recursive CTEs are only supported",
    ),
    "the user after many of its rows": (
        """BEGIN; SELECT id FROM notifications WHERE "userId" = 'u'; UPDATE users SET bio = 'x' WHERE id = 'u'""",
        "because there was a parallel operation",
    ),
}
INSTEAD = [
    "SELECT id FROM price_alerts WHERE id = 'a' FOR UPDATE",
    'SELECT u.id FROM users AS u WHERE u.id IN (SELECT n."userId" FROM notifications AS n)',
    'SELECT u.id, n.c FROM users AS u LEFT JOIN (SELECT "userId", count(*) AS c FROM notifications GROUP BY "userId") AS n ON n."userId" = u.id',
    "SELECT EXISTS (SELECT 1 FROM notifications)",
    "SET citus.enable_repartition_joins TO on",
    'SELECT n.id FROM notifications AS n JOIN price_alerts AS a ON a."userId" = n."userId"',
]


def test_prismas_transactions_succeed(distributed):
    with distributed.connect(options=SEQUENTIAL) as client:
        for statements in TRANSACTIONS.values():
            client.execute("BEGIN")
            for statement in statements:
                client.execute(statement)
            client.execute("COMMIT")
        assert client.execute("SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM ai_messages)").fetchone() == (0, 0)


def test_a_client_writes_to_all_18_tables(distributed):
    writer = Writer(distributed)
    with writer:
        while not writer.rounds and writer.is_alive():
            writer.join(0.1)

    assert writer.errors == []
    assert distributed.execute("SELECT count(*) FROM notifications") == [(0,)]


def test_what_citus_rejects_and_its_alternatives_are_as_listed(distributed):
    distributed.execute(USER)
    answers = {}
    for what, (statement, _) in REJECTED.items():
        with distributed.connect() as client:
            try:
                for part in statement.split("; "):
                    client.execute(part)
                answers[what] = "accepted"
            except Error as error:
                answers[what] = str(error)

    assert {what for what, (_, reason) in REJECTED.items() if reason not in answers[what]} == set()
    with distributed.connect() as client:
        for alternative in INSTEAD:
            client.execute(alternative)
