"""Every page and many commands, run one after the other in one process."""

TOKEN = "0123456789abcdef0123456789abcdef"  # For METRICS_TOKEN.

# Commands that need no session; EMAIL is the address of an existing person.
COMMANDS = """
    dbstatus
    dbstatus --write-check --security --indexes
    dbhealth
    dbmaintain weekly --dry-run
    dbperson export EMAIL
    dbperson erase EMAIL
    dbperson erase EMAIL --yes
    dbroles
    dbseed --users 5 --yes --production
    dbreset
    dbbackup --list
    migrate --plan
    migrate --check
    showmigrations
    check --database default
    clearsessions
    sqlflush
    inspectdb
"""

# `look`, where it is defined, is called after each.
SCRIPT = """
import contextlib, io, json, os
from django.conf import settings
from django.contrib import admin
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from accounts.models import User
from travel.models import PriceAlert, PriceHistory
from fly2any.database.errors import explain

results = {}

def done(what, result):
    connection.close()
    results[what] = result
    if "look" in globals():
        look(what)

def run(line, email):
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            call_command(*line.replace("EMAIL", email).split(), stdout=out, stderr=out)
        return 0
    except SystemExit as end:
        return end.code or 0
    except Exception as error:
        return explain(error) or f"{type(error).__name__}: {error}"

client = Client(HTTP_HOST="localhost", raise_request_exception=False, headers={"Authorization": f"Bearer {settings.METRICS_TOKEN}"})
settings.SECURE_SSL_REDIRECT = settings.SECOND_FACTOR = False

def get(path, allowed=200):
    answer = client.get(path, secure=True)
    good = answer.status_code in (200, allowed) and (path != "/metrics" or b"fly2any_up 1.0" in answer.content)
    done(path, 200 if good else f"{answer.status_code} {answer.content[-200:]}")

for path in ("/health/live", "/health/ready", "/metrics"):
    get(path)
client.force_login(User.objects.filter(is_superuser=True).get(), backend="fly2any.administration.backends.PasswordBackend")
get(reverse("admin:index"))
get(reverse("admin:database"))
for sought in ("GRU-LIS", "GRU", "203.0.113.1", "rosa", "rosa.zhang.1@demo.fly2any.example"):
    get(reverse("admin:search") + "?q=" + sought)
alert = PriceAlert.objects.first()
PriceAlert.objects.filter(pk=alert.pk).update(active=True, triggered=False)
reached = {name: getattr(alert, name) for name in ("origin", "destination", "depart_date", "currency")}
PriceHistory.objects.create(**reached, price=alert.target_price, provider="amadeus", timestamp=timezone.now())
admin.autodiscover()
for model in admin.site._registry:
    place = (model._meta.app_label, model._meta.model_name)
    get(reverse("admin:%s_%s_changelist" % place))
    if row := model._base_manager.first():
        for page in ("change", "overview", "history", "delete"):
            with contextlib.suppress(NoReverseMatch):
                get(reverse("admin:%s_%s_%s" % (*place, page), args=[row.pk]), allowed=403 if page == "delete" else 200)
email = User.objects.filter(is_superuser=False, email__isnull=False).first().email
for line in LINES:
    done(line, run(line, email))
print(json.dumps(results))
"""


def lines(commands):
    return [line.strip() for line in commands.strip().splitlines() if line.strip()]


def drive(commands):
    """Return a script for `shell` that runs all of it, and prints the result of each as one line of JSON."""
    return f"LINES = {lines(commands)!r}\n{SCRIPT}"
