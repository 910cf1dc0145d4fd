"""Retention deletes a conversation only with all of its messages."""

import pytest

from fly2any.database.errors import Refusal
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import count
from tests.conftest import django
from tests.database.old_rows import BEFORE, CASES, NEW, OLD, put, put_back, swept
from tests.database.taken import rows
from tests.servers import open_transaction

SAID_IN_PARTS = """
    ALTER TABLE ai_messages RENAME TO plain;
    CREATE TABLE ai_messages (LIKE plain INCLUDING DEFAULTS) PARTITION BY HASH ("conversationId");
    CREATE TABLE said_0 PARTITION OF ai_messages FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE said_1 PARTITION OF ai_messages FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    ALTER TABLE ai_messages ADD FOREIGN KEY ("conversationId") REFERENCES ai_conversations ON UPDATE CASCADE ON DELETE CASCADE;
    DROP TABLE plain;
"""


def said_more(database, conversation="goes", time=OLD):
    database.execute(
        'INSERT INTO ai_messages (id, "conversationId", role, content, timestamp, "createdAt") VALUES (%s, %s, %s, %s, 1, %s)',
        [f"of {conversation}", conversation, "user", "wait", time],
    )


@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
def test_only_the_conversation_with_a_locked_message_stays(migrated, archived, tmp_path):
    for conversation in ("goes", "held", "goes too"):
        put(migrated, "ai_conversations", conversation, CASES["ai_conversations"][0])
        said_more(migrated, conversation)

    with open_transaction(migrated, "SELECT FROM ai_messages WHERE id = 'of held' FOR UPDATE"):
        result = swept(migrated, "ai_conversations", tmp_path if archived else None)

    assert (result.removed, result.skipped) == (2, 0)
    assert migrated.execute(
        'SELECT c.id, m.id FROM ai_conversations AS c JOIN ai_messages AS m ON m."conversationId" = c.id'
    ) == [("held", "of held")]


def test_conversations_are_archived_with_messages_in_partitions_and_restored(migrated, tmp_path):
    migrated.execute(SAID_IN_PARTS)
    for conversation in ("goes", "held", "goes too"):
        put(migrated, "ai_conversations", conversation, CASES["ai_conversations"][0])
        said_more(migrated, conversation)
    before = rows(migrated)

    with open_transaction(migrated, "SELECT FROM ai_messages WHERE id = 'of held' FOR UPDATE"):
        result = swept(migrated, "ai_conversations", tmp_path)
    left = migrated.execute(
        'SELECT c.id, m.id FROM ai_conversations AS c FULL JOIN ai_messages AS m ON m."conversationId" = c.id'
    )
    put_back(migrated, tmp_path)

    assert (result.removed, left) == (2, [("held", "of held")])
    assert rows(migrated) == before


def test_a_message_that_is_being_changed_keeps_its_conversation(migrated, tmp_path):
    put(migrated, "ai_conversations", "goes", CASES["ai_conversations"][0])
    said_more(migrated)

    with open_transaction(migrated, "UPDATE ai_messages SET content = 'v1:sealed'") as site:
        result = swept(migrated, "ai_conversations", tmp_path)
        site.execute("COMMIT")

    assert (result.removed, result.archives, list(tmp_path.iterdir())) == (0, (), [])
    assert migrated.execute("SELECT content FROM ai_messages") == [("v1:sealed",)]


@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
def test_a_conversation_stays_while_one_of_its_messages_is_not_old(migrated, archived, tmp_path):
    for conversation, said in (("goes", OLD), ("stays", NEW)):
        put(migrated, "ai_conversations", conversation, CASES["ai_conversations"][0])
        said_more(migrated, conversation, said)

    with django(migrated) as connection:
        planned = count(connection, RULES["ai_conversations"], BEFORE)
    result = swept(migrated, "ai_conversations", tmp_path if archived else None)

    assert (planned, result.removed, result.finished, result.skipped) == (1, 1, True, 0)
    assert migrated.execute("SELECT id FROM ai_conversations") == [("stays",)]
    assert migrated.execute("SELECT id FROM ai_messages") == [("of stays",)]


KEPT = {
    "a trigger keeps them": (
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        " CREATE TRIGGER keep BEFORE DELETE ON ai_messages FOR EACH ROW EXECUTE FUNCTION keep()"
    ),
    "triggers are off": "ALTER TABLE ai_conversations DISABLE TRIGGER ALL",
    "no foreign key": 'ALTER TABLE ai_messages DROP CONSTRAINT "ai_messages_conversationId_fkey"',
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
@pytest.mark.parametrize("done", KEPT)
def test_a_conversation_whose_messages_would_remain_is_not_deleted(migrated, done, archived, tmp_path):
    put(migrated, "ai_conversations", "goes", CASES["ai_conversations"][0])
    said_more(migrated)
    migrated.execute(KEPT[done])
    before = rows(migrated)

    with pytest.raises(Refusal, match=r"^Rows of ai_messages would remain after the rows of ai_conversations"):
        swept(migrated, "ai_conversations", tmp_path if archived else None)

    assert rows(migrated) == before
