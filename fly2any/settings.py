"""Settings of the Fly2Any database. The environment (and `.env`) is read here and nowhere else.

Without POSTGRES_URL or DATABASE_URL the project is in development: embedded server, DEBUG, a key of its own making.
"""

import contextlib
import io
import os
import re
import secrets
from datetime import timedelta
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from fly2any.postgres import embedded, url

BASE_DIR = Path(__file__).resolve().parent.parent
# The same database without a pooler, as Vercel, Prisma, Neon and Railway call it.
DIRECT_URLS = ("POSTGRES_URL_NON_POOLING", "DIRECT_URL", "DATABASE_URL_UNPOOLED", "DATABASE_UNPOOLED_URL")
# A database of PostgreSQL, as Prisma, JDBC, SQLAlchemy and Neon's console also write it; some files keep the quotes.
LIKE_A_URL = re.compile(r"""\s*(psql\s+(-\S+\s+)*)?["']?[\w.+:-]*(postgres(ql)?|pgsql|postgis|prisma)(\+\w+)?://""", re.I)
OF_OTHER_DATABASES = re.compile(r"(\w+_)?(SHADOW|TEST)(_\w+)?")  # As Prisma's SHADOW_DATABASE_URL: never the site's own.
SERVERLESS_MARKS = ("VERCEL", "AWS_LAMBDA_FUNCTION_NAME")
PLATFORMS_COMMIT = ("VERCEL_GIT_COMMIT_SHA", "RAILWAY_GIT_COMMIT_SHA", "RENDER_GIT_COMMIT", "SOURCE_VERSION", "GITHUB_SHA")


def read_env_file(path):
    """Put the lines of `.env` into the environment, which wins; refuse what is not `NAME=value` without showing it."""
    if not path.is_file():
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ImproperlyConfigured(f"{path} is not UTF-8: save it as UTF-8.") from None
    except PermissionError:
        raise ImproperlyConfigured(f"{path} may not be read: run the command as its owner.") from None
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#") and not re.match(r"\s*(export\s+)?[A-Za-z_]\w*\s*=", line):
            raise ImproperlyConfigured(f"Line {number} of {path} is not NAME=value: correct it.")
        name, _, value = line.strip().removeprefix("export ").partition("=")
        if os.environ.get(name.strip()) == "" and LIKE_A_URL.match(value):  # It would be the embedded server, in silence.
            raise ImproperlyConfigured(
                f"{name.strip()} is empty in the environment and set in {path}: unset it in the environment, or remove it from the file."
            )
    environ.Env.read_env(io.StringIO("\n".join(re.sub(r"^\s*((?:export\s+)?\w+)\s*=\s*", r"\1=", line) for line in lines)))


def switch(variable, default):
    """Return a variable that is on or off."""
    word = os.environ.get(variable, "").strip().lower()
    words = {
        "": default,
        **dict.fromkeys(["1", "true", "yes", "on"], True),
        **dict.fromkeys(["0", "false", "no", "off"], False),
    }
    if word not in words:
        raise ImproperlyConfigured(f"{variable} is neither true nor false: set it to one of them.")
    return words[word]


def numbers(variable, default, many):
    """Return the whole numbers of a variable that has `many`, with commas between."""
    words = (os.environ.get(variable, "").strip() or default).split(",")
    if len(words) != many or not all(word.strip().isdecimal() and word.isascii() and len(word) < 6 for word in words):
        raise ImproperlyConfigured(
            f"{variable} is not {'a number' if many == 1 else f'{many} numbers'} as in {default}: correct it."
        )
    return [int(word) for word in words]


def days(variable):
    """Return a variable as `table=days,table=days` as a dictionary."""
    found = {}
    for entry in filter(None, map(str.strip, os.environ.get(variable, "").split(","))):
        name, equals, number = (word.strip() for word in entry.partition("="))
        if not (name and equals and number.isascii() and number.isdecimal() and len(number) < 6) or name in found:
            raise ImproperlyConfigured(
                f"{variable} is not table=days,table=days, each table once, at “{entry[:40]}”: correct it."
            )
        found[name] = int(number)
    return found


def first_url(*variables):
    """Return (variable, URL) of the first of `variables` that is set, or None."""
    for variable in variables:
        if value := os.environ.get(variable, "").strip():
            return variable, value
    return None


def not_used(used, variables):
    """Return the sentence that names those of `variables` whose URL is not that of the database `used`, "" without one."""
    names = []
    for name in variables:
        try:
            same = url.is_same_database(used, url.parse(os.environ[name], variable=name))
        except ImproperlyConfigured:  # Whatever it leads to, this project could not use it.
            same = False
        if not same and not OF_OTHER_DATABASES.fullmatch(name):
            names.append(name)
    if not names:
        return ""
    where = f'database "{used["NAME"]}" at {used["HOST"] or "the local socket"}, port {used["PORT"] or 5432}'
    many = len(names) > 1
    return f"{used['VARIABLE']} is used: {where}. {', '.join(names)} {'differ' if many else 'differs'} and {'are' if many else 'is'} not used."


def embedded_database(home, **settings):
    """Return the DATABASES entry of the embedded server in the folder `home`, with `settings` of postgresql.conf."""
    home = home.resolve()
    return {
        "ENGINE": "fly2any.postgres",
        "NAME": "fly2any",
        "USER": embedded.SUPERUSER,
        "HOST": str(embedded.socket_folder(home)),
        "OPTIONS": {"connect_timeout": url.CONNECT_TIMEOUT, "application_name": "fly2any"},
        "EMBEDDED": {"HOME": home, "NAME": "fly2any", "SETTINGS": settings},
    }


def pool(given):
    """Return the options of psycopg's pool for the processes that serve pages, None for no pool.

    `given` are Prisma's parameters in the URL, which DATABASE_POOL_MAX overrides. A serverless function serves one request
    at a time and is frozen in between: a pool would only keep connections from others.
    """
    default = 0 if SERVERLESS else given.get("max_size", 5 if DEVELOPMENT else 10)
    most = os.environ.get("DATABASE_POOL_MAX", "").strip() or str(default)
    if not most.isdecimal() or int(most) > 10_000:
        raise ImproperlyConfigured("DATABASE_POOL_MAX is not a number from 0 (no pool) to 10000: correct it.")
    # Seconds: to wait for one, and to go on trying to make one before a new request tries anew.
    return {"min_size": 0, "timeout": 5, "reconnect_timeout": 5, **given, "max_size": int(most)} if int(most) else None


def development_key():
    """Return the key in `.secret_key`, made on first use: sessions outlive a restart, and no key is in the repository."""
    path = BASE_DIR / ".secret_key"
    try:
        if not path.exists():
            fresh = path.with_name(f".secret_key.{secrets.token_hex(8)}")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(50))
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(fresh)  # The first process wins; a reader never sees half a key.
            fresh.unlink()
        return path.read_text()
    except OSError as error:
        raise ImproperlyConfigured(
            f"{path} cannot be read or made ({error.strerror}): run the command as the project's owner, or set SECRET_KEY."
        ) from error


def required(variable, example):
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ImproperlyConfigured(
            f"{variable} is not set, and with {given[0]} this is production: set it, for example {example}."
        )
    return value


def hosts(text):
    return [host.strip() for host in text.split(",") if host.strip()]


def keys(variable):
    """Return the keys in `variable`, separated by commas. Pieces of one key that has commas are short, and easy to guess."""
    found = hosts(os.environ.get(variable, ""))
    if any(len(key) < 32 for key in found):
        raise ImproperlyConfigured(
            f"{variable} has a key of fewer than 32 characters, or one with a comma, which separates keys: use keys of"
            " `openssl rand -base64 48`. A key with a comma cannot be named here: what it signed is no longer accepted."
        )
    return found


def refuse_other_encodings(*variables):
    """Raise ImproperlyConfigured for the first of `variables` that is not UTF-8: no database, log or page could hold it."""
    for variable in variables:
        try:
            os.environ.get(variable, "").encode()
        except UnicodeEncodeError:
            raise ImproperlyConfigured(f"{variable} is not UTF-8: write it in UTF-8.") from None


read_env_file(BASE_DIR / ".env")
refuse_other_encodings(
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "BACKUP_SIGNING_KEY",
    "ALLOWED_HOSTS",
    "CODE_VERSION",
    *PLATFORMS_COMMIT,
    "RETENTION",
    "ARCHIVE_LOCATION",
)
refuse_other_encodings("BACKUP_LOCATION", "BACKUP_RECIPIENT", "BACKUP_IDENTITY_FILE")
for name in url.LIBPQS_PLACE:
    os.environ.pop(name, None)
given = first_url("POSTGRES_URL", "DATABASE_URL")
others = sorted(name for name, value in os.environ.items() if LIKE_A_URL.match(value))
if not given and (found := [*others, *filter(os.environ.get, ["POSTGRES_HOST"])]):  # Vercel's, beside the URL.
    raise ImproperlyConfigured(
        f"{found[0]} is set, and neither POSTGRES_URL nor DATABASE_URL: set POSTGRES_URL to the URL of the database, or unset {found[0]}."
    )
DEVELOPMENT = given is None
DEBUG = switch("DEBUG", DEVELOPMENT)
SERVERLESS = any(map(os.environ.get, SERVERLESS_MARKS))
# The version of this code, for the journal of migrations: as the platform tells it, else git is asked.
CODE_VERSION = os.environ.get("CODE_VERSION") or next(filter(None, map(os.environ.get, PLATFORMS_COMMIT)), "")

URLS_NOT_USED = ""  # A sentence, where a variable names another database than ours.
if given is None:
    DATABASES = {"default": embedded_database(BASE_DIR / ".postgres")}
    DATABASE_VARIABLE = "POSTGRES_URL"
else:
    DATABASE_VARIABLE = given[0]  # As messages call it.
    DATABASES = {"default": url.parse(given[1], variable=given[0])}
    # For what needs a session of its own, where POSTGRES_URL leads through a pooler.
    if direct := first_url(*DIRECT_URLS):
        DATABASES["default"]["DIRECT"] = url.parse(direct[1], variable=direct[0])
        if schema := DATABASES["default"]["OPTIONS"].get("options"):
            DATABASES["default"]["DIRECT"]["OPTIONS"].setdefault("options", schema)
    # Where the direct URL leads is compared when it is used.
    read = {given[0], "POSTGRES_REPLICA_URL", *(direct or ())[:1]}
    URLS_NOT_USED = not_used(DATABASES["default"], [name for name in others if name not in read])

# A connection of the pool is asked before it is used: the server may have ended it, as after a restore.
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DATABASES["default"]["POOL"] = pool(DATABASES["default"].get("POOL", {}))

DATABASE_ROUTERS = ["fly2any.administration.replica.Router"]
if replica := first_url("POSTGRES_REPLICA_URL"):
    DATABASES["replica"] = url.parse(replica[1], variable=replica[0])
    # Pages wait for it, and can do without: each makes a connection, which says within 2 s whether the server answers.
    DATABASES["replica"]["OPTIONS"] |= {"connect_timeout": 2, "tcp_user_timeout": 5000}
    DATABASES["replica"] |= {"POOL": None, "TEST": {"MIRROR": "default"}}
    if schema := DATABASES["default"]["OPTIONS"].get("options"):
        DATABASES["replica"]["OPTIONS"].setdefault("options", schema)
REPLICA_MAX_LAG = numbers("REPLICA_MAX_LAG", "10", 1)[0]  # Seconds.

if DEVELOPMENT:
    SECRET_KEY = os.environ.get("SECRET_KEY") or development_key()
    ALLOWED_HOSTS = hosts(os.environ.get("ALLOWED_HOSTS", "")) or ["localhost", "127.0.0.1", "[::1]", "testserver"]
else:
    SECRET_KEY = required("SECRET_KEY", 'SECRET_KEY="$(openssl rand -base64 48)"')
    ALLOWED_HOSTS = hosts(required("ALLOWED_HOSTS", "ALLOWED_HOSTS=admin.example.com"))
SECRET_KEY_FALLBACKS = keys("SECRET_KEY_FALLBACKS")  # Older ones, still good for what they signed.

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
# Five wrong passwords for an address from one place close it there for a quarter of an hour.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # An attempt that is not tried is not counted, so it keeps no one out.
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "code"]  # Masked in its records, as the password is.
AXES_USERNAME_FORM_FIELD = "username"
AXES_CLIENT_IP_CALLABLE = "fly2any.administration.accesses.network_of"
AXES_LOCKOUT_TEMPLATE = "admin/locked_out.html"
AXES_DISABLE_ACCESS_LOG = True  # The login history has them.
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
OTP_TOTP_ISSUER = OTP_WEBAUTHN_RP_NAME = "Fly2Any"
OTP_WEBAUTHN_ALLOW_PASSWORDLESS_LOGIN = False  # A passkey is the second factor, the password stays the first.
# The helper takes the host and the origin from the request, so that neither is configured.
SILENCED_SYSTEM_CHECKS = ["otp_webauthn.E010", "otp_webauthn.E030"]
OTP_WEBAUTHN_HELPER_CLASS = "fly2any.administration.passkeys.Helper"
LOGIN_REDIRECT_URL = "admin:index"
# Whether the admin asks staff for a second factor, which they set up at their first sign-in.
SECOND_FACTOR = switch("SECOND_FACTOR", not DEBUG)

BACKUPS = {
    # A folder, or s3://bucket/folder; in production nowhere until it is said.
    "location": os.environ.get("BACKUP_LOCATION", "").strip() or (str(BASE_DIR / "backups") if DEVELOPMENT else ""),
    "expected": bool(os.environ.get("BACKUP_LOCATION", "").strip()),  # Whether dbstatus warns where no good one is new enough.
    "keep": numbers("BACKUP_KEEP", "7,4,12", 3),  # The last good ones of so many days, weeks and months.
    "max_age": timedelta(hours=numbers("BACKUP_MAX_AGE", "26", 1)[0]),
    "verify_timeout": numbers("BACKUP_VERIFY_TIMEOUT", "21600", 1)[0],  # Seconds for a trial restore; 0 for no limit.
    "recipient": os.environ.get("BACKUP_RECIPIENT", "").strip(),
    # The first signs, each of them verifies.
    "signing_keys": keys("BACKUP_SIGNING_KEY") or [SECRET_KEY, *SECRET_KEY_FALLBACKS],
    "identity_file": os.environ.get("BACKUP_IDENTITY_FILE", "").strip(),
}

# Milliseconds that a statement of a migration or of maintenance waits for a lock, and the site behind it.
LOCK_TIMEOUT = numbers("LOCK_TIMEOUT", "2000", 1)[0]
if LOCK_TIMEOUT == 0:
    raise ImproperlyConfigured("LOCK_TIMEOUT is 0, which would wait without end: set it to milliseconds, or unset it.")

RETENTION = {
    "days": days("RETENTION"),  # Rows of these tables go when they are so old; of others none does.
    "archive": os.environ.get("ARCHIVE_LOCATION", "").strip(),  # Where they are kept, as backups are: nowhere until it is said.
}

WAIVERS = BASE_DIR / "waivers.toml"  # Findings that a named person accepts until a date.

# Who shows it as `Authorization: Bearer …` gets the metrics; without one there are none.
METRICS_TOKEN = os.environ.get("METRICS_TOKEN", "").strip()
if METRICS_TOKEN and (len(METRICS_TOKEN) < 16 or not METRICS_TOKEN.isascii() or not METRICS_TOKEN.isprintable()):
    raise ImproperlyConfigured(
        'METRICS_TOKEN is not 16 or more characters of ASCII: set it to METRICS_TOKEN="$(openssl rand -hex 24)".'
    )

LOG_FORMAT = os.environ.get("LOG_FORMAT", "").strip().lower() or ("text" if DEBUG else "json")
if LOG_FORMAT not in ("text", "json"):
    raise ImproperlyConfigured("LOG_FORMAT is neither text nor json: set it to one of them.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"text": {"()": "fly2any.logs.Text"}, "json": {"()": "fly2any.logs.Json"}},
    "filters": {"unasked": {"()": "fly2any.logs.Unasked"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["unasked"]}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": [], "propagate": True},  # Its own handlers would mail what they say.
        "django.db.backends": {"level": "INFO"},  # Below it are statements with their values.
        "fly2any": {"level": "WARNING" if DEBUG else "INFO"},  # runserver logs requests already.
    },
}

# An error page shows the environment too: neither a password nor a URL that holds one.
DEFAULT_EXCEPTION_REPORTER_FILTER = "fly2any.error_pages.ExceptionReporterFilter"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

# Bytes of a request: a larger one is refused before it is read. No form has a field for a file.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440
FILE_UPLOAD_HANDLERS = ["fly2any.administration.middleware.NoUploads"]

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # From where they lie: a deploy gathers nothing.

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Nothing but our own files, no script and no style in a page, no page of ours in another's.
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
TRUST_PROXY = switch("TRUST_PROXY", False)

if not DEBUG:
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
    SECURE_SSL_REDIRECT = switch("SECURE_SSL_REDIRECT", True)
    if TRUST_PROXY:
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
