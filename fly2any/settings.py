"""Django's settings of the Fly2Any database. The project's variables and `.env` are read here; gunicorn.conf.py
reads WEB_CONCURRENCY too.

The time limits of the admin's statements are not settings: administration/deadlines.py sets them in each transaction, and
postgres/response_timeout.py limits waits for a server. docs/reference/settings.md lists the variables. Without POSTGRES_URL or
DATABASE_URL the project is in development: embedded server, DEBUG, a generated key.
"""

import os
from datetime import timedelta
from pathlib import Path

from fly2any.environment import Env, kept_key
from fly2any.postgres.url import LIBPQS_PLACE, embedded_database

BASE_DIR = Path(__file__).resolve().parent.parent

env = Env()
ENV_FILE = env.file(default=BASE_DIR / ".env")
if ENV_FILE:
    env.read_file(ENV_FILE)
for name in LIBPQS_PLACE:
    os.environ.pop(name, None)

DATABASE_VARIABLE = env.first("POSTGRES_URL", "DATABASE_URL")  # The name of the variable, for messages.
DEVELOPMENT = DATABASE_VARIABLE not in env
DEBUG = env.bool("DEBUG", default=DEVELOPMENT)
SERVERLESS = "VERCEL" in env or "AWS_LAMBDA_FUNCTION_NAME" in env
# The version of this code, for the journal of migrations: as the platform sets it, otherwise from git.
CODE_VERSION = env.str(
    env.first(
        "CODE_VERSION",
        "VERCEL_GIT_COMMIT_SHA",
        "RAILWAY_GIT_COMMIT_SHA",
        "RENDER_GIT_COMMIT",
        "SOURCE_VERSION",
        "GITHUB_SHA",
    ),
    default="",
)

# The same database without a pooler, as Vercel, Prisma, Neon and Railway call it.
DIRECT_VARIABLE = env.first("POSTGRES_URL_NON_POOLING", "DIRECT_URL", "DATABASE_URL_UNPOOLED", "DATABASE_UNPOOLED_URL")
DATABASES = {"default": env.db(DATABASE_VARIABLE) or embedded_database(BASE_DIR / ".postgres")}
if DEVELOPMENT:
    env.refuse_urls()
    URLS_NOT_USED = ""
else:
    # Whether the direct URL leads to the same database is checked when it is used.
    URLS_NOT_USED = env.urls_not_used(DATABASES["default"], DATABASE_VARIABLE, DIRECT_VARIABLE, "POSTGRES_REPLICA_URL")
    if direct := env.db(DIRECT_VARIABLE):
        DATABASES["default"]["DIRECT"] = direct
if replica := env.db("POSTGRES_REPLICA_URL"):
    # Pages can do without it: each opens a new connection, which fails within 2 s if the server does not answer.
    replica["OPTIONS"] |= {"connect_timeout": 2, "tcp_user_timeout": 5000}
    DATABASES["replica"] = {**replica, "POOL": None, "TEST": {"MIRROR": "default"}}
if schema := DATABASES["default"]["OPTIONS"].get("options"):
    for database in filter(None, [DATABASES["default"].get("DIRECT"), DATABASES.get("replica")]):
        database["OPTIONS"].setdefault("options", schema)
DATABASE_ROUTERS = ["fly2any.administration.replica.Router"]
REPLICA_MAX_LAG = env.int("REPLICA_MAX_LAG", default=10)  # Seconds.

# A pooled connection is checked before use, because the server may have ended it, as after a restore.
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# psycopg's pool, for the processes that serve pages. A serverless function serves one request at a time and is frozen in
# between: a pool would only keep connections from others.
POOL = DATABASES["default"].get("POOL", {})  # From Prisma's parameters in the URL.
POOL_MAX = env.int(
    "DATABASE_POOL_MAX",
    default=0 if SERVERLESS else POOL.get("max_size", 5 if DEVELOPMENT else 10),
    most=10_000,
    zero="0 (no pool)",
)
# Seconds: to wait for a connection, and to keep trying to open one before a new request tries again.
POOL = {"min_size": 0, "timeout": 5, "reconnect_timeout": 5, **POOL, "max_size": POOL_MAX}
DATABASES["default"]["POOL"] = POOL if POOL_MAX else None

if DEVELOPMENT:
    SECRET_KEY = env.str("SECRET_KEY", default="") or kept_key(BASE_DIR / ".secret_key")
    ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]", "testserver"])
else:
    SECRET_KEY = env.str("SECRET_KEY", example="the output of `openssl rand -base64 48`")
    ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", example="admin.example.com")
SECRET_KEY_FALLBACKS = env.keys("SECRET_KEY_FALLBACKS", default=[])  # Older keys, which still verify what they signed.
# For gunicorn.conf.py, which reads it itself; gunicorn fails before, with a traceback, if it is not a number in the environment.
env.int("WEB_CONCURRENCY", default=2, least=1, most=1_000)

INSTALLED_APPS = [
    "fly2any.administration.apps.AdministrationConfig",
    "fly2any.administration.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "axes",
    "django_otp",
    "django_otp.plugins.otp_static",
    "django_otp.plugins.otp_totp",
    "django_otp_webauthn",
    "fly2any.database",
    "accounts",
    "travel",
    "engagement",
    "ai_consultant",
]

MIDDLEWARE = [
    "fly2any.logs.logged",
    "fly2any.monitoring.monitored",
    "fly2any.administration.middleware.plain_requests",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "fly2any.administration.deadlines.limited",
    "fly2any.administration.stand_ins.refused",
    "fly2any.administration.untrusted_writes.refused",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "axes.middleware.AxesMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "fly2any.urls"
WSGI_APPLICATION = "fly2any.wsgi.application"
ASGI_APPLICATION = "fly2any.asgi.application"

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "accounts.passwords.LongestPasswordValidator"},
]

AUTHENTICATION_BACKENDS = ["fly2any.administration.backends.LockoutBackend", "fly2any.administration.backends.PasswordBackend"]
# Five wrong passwords for an address from one place lock it there for 15 minutes.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # A rejected attempt is not counted, so it extends no lockout.
# Masked in axes' records, like the password of a sign-in. The page to return to may be a search for another person.
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "code", "old_password", "new_password1", "new_password2", "next"]
AXES_USERNAME_FORM_FIELD = "username"
AXES_CLIENT_IP_CALLABLE = "fly2any.administration.client_address.network_of"
AXES_LOCKOUT_TEMPLATE = "admin/locked_out.html"
AXES_DISABLE_ACCESS_LOG = True  # The table of sign-ins has them.
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
OTP_TOTP_ISSUER = OTP_WEBAUTHN_RP_NAME = "Fly2Any"
OTP_WEBAUTHN_ALLOW_PASSWORDLESS_LOGIN = False  # A passkey is the second factor, the password stays the first.
# The helper takes the host and the origin from the request, so that neither is configured.
SILENCED_SYSTEM_CHECKS = ["otp_webauthn.E010", "otp_webauthn.E030"]
OTP_WEBAUTHN_HELPER_CLASS = "fly2any.administration.passkeys.Helper"
LOGIN_REDIRECT_URL = "admin:index"
# Whether the admin asks staff for a second factor, which they set up at their first sign-in.
SECOND_FACTOR = env.bool("SECOND_FACTOR", default=not DEBUG)

BACKUPS = {
    # A folder, or s3://bucket/folder; in production there is no default.
    "location": env.str("BACKUP_LOCATION", default=str(BASE_DIR / "backups") if DEVELOPMENT else ""),
    "expected": "BACKUP_LOCATION" in env,  # Whether dbstatus warns if no verified backup is recent enough.
    "keep": env.list(
        "BACKUP_KEEP", cast=int, default=[7, 4, 12], length=3
    ),  # The numbers of days, weeks and months for which backups are kept.
    "max_age": timedelta(hours=env.int("BACKUP_MAX_AGE", default=26)),
    "verify_timeout": env.int("BACKUP_VERIFY_TIMEOUT", default=21_600),  # Seconds for a trial restore; 0 for no limit.
    "recipient": env.str("BACKUP_RECIPIENT", default=""),
    # The first signs, all verify.
    "signing_keys": env.keys("BACKUP_SIGNING_KEY", default=[SECRET_KEY, *SECRET_KEY_FALLBACKS]),
    "identity_file": env.str("BACKUP_IDENTITY_FILE", default=""),
}

# Milliseconds that a statement of a migration or of maintenance waits for a lock, and the site behind it; 0 would be no limit.
LOCK_TIMEOUT = env.int("LOCK_TIMEOUT", default=2000, least=1)

RETENTION = {
    "days": env.dict("RETENTION", default={}),  # The age in days after which rows of these tables are deleted.
    "archive": env.str("ARCHIVE_LOCATION", default=""),  # Where deleted rows are archived, if set.
}

WAIVERS = BASE_DIR / "waivers.toml"  # Findings that a named person accepts until a date.

# Clients that send it as `Authorization: Bearer …` get the metrics; without it there are none.
METRICS_TOKEN = env.token("METRICS_TOKEN", default="")

LOG_FORMAT = env.str("LOG_FORMAT", default="text" if DEBUG else "json", choices=["text", "json"])
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"text": {"()": "fly2any.logs.Text"}, "json": {"()": "fly2any.logs.Json"}},
    "filters": {"unasked": {"()": "fly2any.logs.Unasked"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["unasked"]}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": [], "propagate": True},  # Django's own handlers would send mail.
        "django.db.backends": {"level": "INFO"},  # Lower levels log statements with their values.
        "fly2any": {"level": "WARNING" if DEBUG else "INFO"},  # runserver logs requests already.
    },
}

# An error page shows the environment too, but no password and no URL that contains one.
DEFAULT_EXCEPTION_REPORTER_FILTER = "fly2any.error_pages.ExceptionReporterFilter"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

# Bytes of a request: a larger one is refused before it is read. No form has a field for a file.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440
FILE_UPLOAD_HANDLERS = ["fly2any.administration.middleware.NoUploads"]

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # Served from their source folders: collectstatic is not needed.

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Only our own files, no inline script or style, no framing by other sites.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "object-src": ["'none'"],
    }
}
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"  # A link on another site opens the admin signed out.
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
TRUST_PROXY = env.bool("TRUST_PROXY", default=False)

if not DEBUG:
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=True)
    if TRUST_PROXY:
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
