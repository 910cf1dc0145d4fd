"""The admin of a distributed database: what is deleted with a row is on other nodes."""

import json

from tests.citus.test_migrate import run

PREVIEWS = """
import json
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
settings.SECOND_FACTOR = False
admin.autodiscover()
users = get_user_model().objects
root = users.filter(is_superuser=True).first() or users.create_superuser("root@example.com", "a-long-password-1")
client = Client(HTTP_HOST="localhost", raise_request_exception=False)
client.force_login(root, backend="fly2any.administration.backends.PasswordBackend")
found = {}
for model in admin.site._registry:
    row = model._base_manager.exclude(pk=root.pk).last() if model is type(root) else model._base_manager.first()
    if row is not None:
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_delete", args=[row.pk])
        found[model._meta.db_table] = client.get(url, secure=True).status_code
print(json.dumps(found))
"""


def test_every_delete_preview_is_shown(distributed):
    run(distributed, "dbseed", "--users", "20", "--yes", "--production")

    found = json.loads(run(distributed, "shell", "-v0", "-c", PREVIEWS).splitlines()[-1])

    assert {table for table, status in found.items() if status != 200} <= {"fly2any_accesses"}  # Which is append-only.
    assert {"users", "ai_conversations", "price_history", "notifications"} <= {*found}
