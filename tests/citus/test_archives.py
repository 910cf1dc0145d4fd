"""Archives of a distributed database: conversations are archived with their messages, which other nodes have, and restored."""

from fly2any.database.retention import removal, sweep
from tests.citus.test_migrate import run
from tests.database.old_rows import CASES, maintain, put, put_back, swept
from tests.database.test_retained_conversations import said_more
from tests.servers import open_transaction

ROWS = " UNION ALL ".join(
    f"SELECT t::text FROM {table} AS t" for table in ("ai_conversations", "ai_messages", "user_activities")
)
# What a client does to a conversation after its version was read, and before it is deleted.
MEANWHILE = {
    "a message is added": """
        INSERT INTO ai_messages (id, "conversationId", role, content, timestamp) VALUES ('new', 'goes', 'user', 'wait', 1)
    """,
    "a message is changed": "UPDATE ai_messages SET content = 'changed'",
    "a message is deleted": "DELETE FROM ai_messages",
    "it is changed": "UPDATE ai_conversations SET metadata = '{\"changed\": true}'",
}


def ask(database, statement="SELECT id FROM ai_conversations"):
    return sorted(database.execute(statement))


def talked(database, *conversations):
    for conversation in conversations:
        put(database, "ai_conversations", conversation, CASES["ai_conversations"][0])
        said_more(database, conversation)


def test_conversations_are_archived_with_their_messages_and_restored_unchanged(distributed, tmp_path):
    run(distributed, "dbseed", "--users", "60", "--yes", "--production")
    before = ask(distributed, ROWS)

    result = maintain(
        distributed, "weekly", "--trust-clock", RETENTION="ai_conversations=1,user_activities=1", ARCHIVE_LOCATION=str(tmp_path)
    )
    left = ask(distributed, ROWS)
    put_back(distributed, tmp_path)

    assert "finished conversations" in result.stdout
    assert len(left) < len(before)
    assert ask(distributed, 'SELECT 1 FROM ai_messages WHERE "conversationId" NOT IN (SELECT id FROM ai_conversations)') == []
    assert ask(distributed, ROWS) == before


def test_a_conversation_that_changes_while_it_is_deleted_stays_whole(distributed, server, tmp_path, monkeypatch):
    read, states = removal.read_versions, []

    def reading_then(statement):
        def read_and_change(cursor, rule, part):
            found = read(cursor, rule, part)
            distributed.execute(statement)
            states.append(ask(distributed, ROWS))
            return found

        return read_and_change

    for what, statement in MEANWHILE.items():
        talked(distributed, "goes")
        monkeypatch.setattr(removal, "read_versions", reading_then(statement))
        result = swept(distributed, "ai_conversations", tmp_path)
        assert (what, result.removed, result.archives, [*tmp_path.iterdir()]) == (what, 0, (), [])
        assert (what, [ask(distributed, ROWS)]) == (what, states)
        distributed.execute("DELETE FROM ai_conversations")
        states.clear()


def test_a_conversation_with_a_locked_message_stays_and_the_others_go(distributed, server, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "BATCH_PATIENCE", 1)
    talked(distributed, "answered", "free", "also free")

    with open_transaction(distributed, "UPDATE ai_messages SET content = 'answer' WHERE id = 'of answered'"):
        result = swept(distributed, "ai_conversations", tmp_path)

    assert (result.removed, ask(distributed)) == (2, [("answered",)])
    assert ask(distributed, "SELECT id FROM ai_messages") == [("of answered",)]
