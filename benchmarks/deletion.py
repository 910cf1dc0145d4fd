"""deleting one user with a million rows below: `user.delete()` against the bare DELETE, and against Django's own CASCADE"""

from django.contrib.auth import get_user_model
from django.db import models, transaction

from benchmarks.measure import migrated_database, rounds, seconds, show, sized

ROWS = sized(500_000, 5_000)  # Rows of notifications, and of messages.
FILL_SQL = f"""
    INSERT INTO users (id, email, "updatedAt") VALUES ('heavy', 'heavy@demo.fly2any.example', now());
    INSERT INTO notifications (id, "userId", type, title, message) SELECT 'n' || i, 'heavy', 'promotion', 't', 'm' FROM generate_series(1, {ROWS}) AS i;
    INSERT INTO ai_conversations (id, "sessionId", "userId", metadata, "updatedAt") SELECT 'c' || i, 's' || i, 'heavy', '{{}}', now() FROM generate_series(1, 10000) AS i;
    INSERT INTO ai_messages (id, "conversationId", role, content, timestamp) SELECT 'm' || i, 'c' || 1 + i % 10000, 'user', 'hello', i FROM generate_series(1, {ROWS}) AS i;
"""


def run():
    with migrated_database() as database:
        with database.cursor() as cursor:
            cursor.execute(FILL_SQL)
            cursor.execute("VACUUM ANALYZE")
        people = get_user_model().objects.using(database.alias)
        user = people.get()

        def undone(action):
            """Measure a deletion, and roll it back, so that each side starts from the same rows."""

            def measure():
                with transaction.atomic(using=database.alias):
                    taken = seconds(action)
                    if people.exists():
                        raise RuntimeError("the user is still there")
                    user.pk = "heavy"
                    transaction.set_rollback(True, using=database.alias)
                with database.cursor() as cursor:
                    cursor.execute("CHECKPOINT")
                return taken

            return measure

        def bare():
            with database.cursor() as cursor:
                cursor.execute("DELETE FROM users WHERE id = 'heavy'")

        def djangos():
            with django_cascades():
                user.delete()

        taken = rounds(5, ours=undone(user.delete), bare=undone(bare), django=undone(djangos))
    show("user.delete()", taken["ours"], taken["bare"], "bare DELETE", "aim ≤ 1.1 ×")
    show("user.delete()", taken["ours"], taken["django"], "Django's CASCADE")


class django_cascades:
    """Let Django's collector cascade instead of the database: inside, every DB_CASCADE below users is CASCADE."""

    def __enter__(self):
        self.changed = []
        for model in (get_user_model(), *(relation.related_model for relation in get_user_model()._meta.related_objects)):
            for relation in model._meta.related_objects:
                if relation.on_delete.__name__ == "DB_CASCADE":
                    self.changed.append((relation.field.remote_field, relation.on_delete))
                    relation.field.remote_field.on_delete = models.CASCADE

    def __exit__(self, *error):
        for relation, on_delete in self.changed:
            relation.on_delete = on_delete
