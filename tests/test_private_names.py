"""Undocumented names of Django, gunicorn and psycopg that our code relies on.

An upgrade that renames one, or changes its parameters, fails here with its name.
"""

import ast
import inspect
import re
import socket

import pytest
from django.contrib.admin import ModelAdmin, site, widgets
from django.contrib.messages.middleware import MessageMiddleware
from django.core.handlers import asgi, wsgi
from django.db.backends.base.base import BaseDatabaseWrapper
from django.forms import BaseForm, BaseModelForm, BaseModelFormSet, CheckboxInput, MultiWidget, Widget
from django.forms.boundfield import BoundField
from django.test import RequestFactory
from django.utils import choices
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import TConn, ThreadWorker
from psycopg import Connection

from accounts.models import User
from tests.conftest import PROJECT

DJANGOS = {
    (wsgi.WSGIRequest, "_set_content_type_params"): "(self, meta)",
    (asgi.ASGIRequest, "_set_content_type_params"): "(self, meta)",
    (asgi.ASGIHandler, "handle"): "(self, scope, receive, send)",
    (asgi.ASGIHandler, "read_body"): "(self, receive)",
    (asgi.ASGIHandler, "send_response"): "(self, response, send)",
    (BoundField, "__init__"): "(self, form, field, name)",
    (BoundField, "_has_changed"): "(self)",
    (BoundField, "value"): "(self)",
    (BaseForm, "_clean_fields"): "(self)",
    (BaseForm, "full_clean"): "(self)",
    (BaseModelFormSet, "_existing_object"): "(self, pk)",
    (BaseModelForm, "_get_validation_exclusions"): "(self)",
    (BaseModelForm, "_post_clean"): "(self)",
    (BaseModelForm, "_save_m2m"): "(self)",
    (BaseModelForm, "save"): "(self, commit=True)",
    (Widget, "format_value"): "(self, value)",
    (MultiWidget, "decompress"): "(self, value)",
    (widgets.ForeignKeyRawIdWidget, "__init__"): "(self, rel, admin_site, attrs=None, using=None)",
    (choices, "flatten_choices"): "(choices)",
    (ModelAdmin, "get_queryset"): "(self, request)",
    (ModelAdmin, "get_form"): "(self, request, obj=None, change=False, **kwargs)",
    (ModelAdmin, "save_model"): "(self, request, obj, form, change)",
    (ModelAdmin, "get_object"): "(self, request, object_id, from_field=None)",
    (ModelAdmin, "changeform_view"): "(self, request, object_id=None, form_url='', extra_context=None)",
    (ModelAdmin, "delete_view"): "(self, request, object_id, extra_context=None)",
    (ModelAdmin, "log_change"): "(self, request, obj, message)",
    (ModelAdmin, "message_user"): "(self, request, message, level=20, extra_tags='', fail_silently=False)",
    (BaseDatabaseWrapper, "check_constraints"): "(self, table_names=None)",
    (Connection, "wait"): "(self, gen: 'PQGen[RV]', interval: 'float' = 0.1, timeout: 'float | None' = None) -> 'RV'",
}  # fmt: skip
GUNICORNS = {
    (TConn, "__init__"): "(self, cfg, sock, client, server)",
    (TConn, "init"): "(self)",
    (TConn, "close"): "(self, graceful=False)",
    (ThreadWorker, "init_process"): "(self)",
    (ThreadWorker, "accept"): "(self, listener)",
    (ThreadWorker, "enqueue_req"): "(self, conn)",
    (ThreadWorker, "check_config"): "(cfg, log)",
    (ThreadWorker, "on_client_socket_readable"): "(self, conn, client)",
    (ThreadWorker, "handle_request"): "(self, req, conn)",
    (ThreadWorker, "finish_request"): "(self, conn, fs)",
    (ThreadWorker, "murder_pending"): "(self)",
    (Unreader, "unread"): "(self, data)",
    (Unreader, "take_buffered"): "(self)",
    (Request, "force_close"): "(self)",
}
# Attributes, which only an instance has.
OF_CONNECTION = ("cfg", "sock", "parser", "data_ready")
OF_WORKER = ("cfg", "alive", "poller", "nr_conns", "worker_connections", "keepalived_conns", "method_queue")

FILES = (
    "gunicorn_worker.py",
    "request_handlers.py",
    "administration/edits.py",
    "administration/saving.py",
    "administration/refusals.py",
)
OF_AN_INSTANCE = {"_errors", "_encoding", "_messages", "_queued_messages"}
OF_PYTHON = {
    "_cache",
    "__setitem__",
}  # The encodings that it has looked up; tests/test_request_bodies.py shows that they are used.
PROMISED = {"_base_manager", "_meta", "_state", "__str__"}  # According to the documentation.


@pytest.mark.parametrize(("owner", "name"), DJANGOS | GUNICORNS, ids=lambda one: getattr(one, "__name__", one))
def test_a_private_name_has_the_signature_that_is_used(owner, name):
    assert str(inspect.signature(getattr(owner, name))) == (DJANGOS | GUNICORNS)[owner, name]


def test_a_connection_and_a_worker_of_gunicorn_have_the_attributes_that_are_used():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = TConn(Config(), ours, ("", 0), ("", 0))
        worker = ThreadWorker(0, 0, [], None, 1, Config(), None)
        worker.tmp.close()

        assert [name for name in OF_CONNECTION if not hasattr(connection, name)] == []
        assert [name for name in OF_WORKER if not hasattr(worker, name)] == []
        assert "is_ssl" in dir(worker.cfg)


def test_requests_messages_and_widgets_of_django_have_the_attributes_that_are_used():
    request = RequestFactory().post("/", content_type="text/plain; charset=latin-1")
    request.session = {}
    MessageMiddleware(lambda request: None).process_request(request)
    wrapped = widgets.RelatedFieldWidgetWrapper(CheckboxInput(), User._meta.get_field("groups").remote_field, site)

    assert request._encoding == "latin-1"
    assert request._messages._queued_messages == []
    assert wrapped.widget.check_test(False) is False


@pytest.mark.parametrize("file", FILES)
def test_every_private_name_that_a_file_uses_is_listed_here(file):
    nodes = [*ast.walk(ast.parse((PROJECT / "fly2any" / file).read_text()))]
    ours = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    private = {node.attr for node in attributes if re.match("_[a-z]", node.attr)} - ours
    overridden = {node.attr for node in attributes if ast.unparse(node.value) == "super()"}

    assert (private | overridden) - {name for _, name in DJANGOS | GUNICORNS} - OF_AN_INSTANCE - OF_PYTHON - PROMISED == set()
