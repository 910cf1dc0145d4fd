"""Settings of the Fly2Any database. The environment (and `.env`) is read here and nowhere else.

Without POSTGRES_URL or DATABASE_URL the project is in development: embedded server, DEBUG, a key of its own making.
"""

import contextlib
import secrets
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from fly2any.postgres import embedded, url

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
env.read_env(str(BASE_DIR / ".env"))


def database_url():
    """Return (variable, URL) of the first of the two variables that is set, or None in development."""
    for variable in ("POSTGRES_URL", "DATABASE_URL"):
        if value := env.str(variable, default=""):
            return variable, value
    return None


def embedded_database(home, **settings):
    """Return the DATABASES entry of the embedded server in the folder `home`, with `settings` of postgresql.conf."""
    return {
        "ENGINE": "fly2any.postgres",
        "NAME": "fly2any",
        "USER": embedded.SUPERUSER,
        "HOST": str(embedded.socket_folder(home)),
        "OPTIONS": {"connect_timeout": url.CONNECT_TIMEOUT, "application_name": "fly2any"},
        "EMBEDDED": {"HOME": home, "NAME": "fly2any", "SETTINGS": settings},
    }


def development_key():
    """Return the key in `.secret_key`, made on first use: sessions outlive a restart, and no key is in the repository."""
    path = BASE_DIR / ".secret_key"
    if not path.exists():
        fresh = path.with_name(f".secret_key.{secrets.token_hex(8)}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(50))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)  # Whoever is first wins; a reader never sees half a key.
        fresh.unlink()
    return path.read_text()


def required(variable, example):
    value = env.str(variable, default="")
    if not value:
        raise ImproperlyConfigured(
            f"{variable} is not set, and with POSTGRES_URL this is production: set it, for example {example}."
        )
    return value


given = database_url()
DEVELOPMENT = given is None
DEBUG = env.bool("DEBUG", default=DEVELOPMENT)

if given is None:
    DATABASES = {"default": embedded_database(BASE_DIR / ".postgres")}
else:
    DATABASES = {"default": url.parse(given[1], variable=given[0])}

if DEVELOPMENT:
    SECRET_KEY = env.str("SECRET_KEY", default="") or development_key()
    ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]", "testserver"])
else:
    SECRET_KEY = required("SECRET_KEY", 'SECRET_KEY="$(openssl rand -base64 48)"')
    ALLOWED_HOSTS = required("ALLOWED_HOSTS", "ALLOWED_HOSTS=admin.example.com").split(",")

INSTALLED_APPS = [
    "fly2any.administration.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "fly2any.database",
    "accounts",
    "travel",
    "engagement",
    "ai_consultant",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "static"

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if not DEBUG:
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=True)
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
