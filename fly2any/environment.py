"""Environment variables and `.env`, read strictly. settings.py names each of them.

An empty variable counts as not set. A missing or wrong value raises ImproperlyConfigured, whose message names the variable
and never shows a value that may be secret.
"""

import contextlib
import io
import re
import secrets
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from fly2any.postgres import url

# A PostgreSQL URL, also as Prisma, JDBC, SQLAlchemy and Neon's console write it; some files keep the quotes.
LIKE_A_URL = re.compile(r"""\s*(psql\s+(-\S+\s+)*)?["']?[\w.+:-]*(postgres(ql)?|pgsql|postgis|prisma)(\+\w+)?://""", re.I)
OF_OTHER_DATABASES = re.compile(
    r"(\w+_)?(SHADOW|TEST)(_\w+)?"
)  # Such as Prisma's SHADOW_DATABASE_URL: never the site's own database.
LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)", re.ASCII)
WORDS = {
    **dict.fromkeys(["1", "true", "yes", "on"], True),
    **dict.fromkeys(["0", "false", "no", "off"], False),
}
MOST = 99_999  # The largest number a variable may have, unless the setting gives another.
SHORTEST_KEY, SHORTEST_TOKEN = 32, 16  # Characters. A part of a key that contains commas would be short and easy to guess.


class Env(environ.Env):
    """django-environ's Env, without its leniency: no `$NAME` is expanded, and no bad value is replaced by a default.

    `defaults` has each variable that was asked for, with its default; Env.NOTSET is that of a required one.
    """

    def __init__(self, **scheme):
        super().__init__(**scheme)
        self.defaults = {}

    def __contains__(self, var):
        return bool(self.ENVIRON.get(var, "").strip())

    def get_value(self, var, cast=None, default=environ.Env.NOTSET, parse_default=False, example=""):
        """Return the value of a variable, `default` where it is not set.

        Raises ImproperlyConfigured for a value that is not UTF-8, which no database, log or page could hold, and for a
        required variable that is not set; `example` is a value, or where to get one.
        """
        self.defaults[var] = default
        if var not in self:
            if default is not self.NOTSET:
                return default
            raise ImproperlyConfigured(
                f"{var} is not set, and with {self.first('POSTGRES_URL', 'DATABASE_URL')} this is production:"
                f" set it, for example to {example}."
            )
        value = self.ENVIRON[var].strip()
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ImproperlyConfigured(f"{var} is not UTF-8: write it in UTF-8.") from None
        return cast(value) if cast else value

    def str(self, var, default=environ.Env.NOTSET, choices=(), example=""):
        """Return a text; of `choices`, two words, the one that was given in any case."""
        value = self.get_value(var, default=default, example=example)
        if not choices or value == default:
            return value
        if value.lower() not in choices:
            raise ImproperlyConfigured(f"{var} is neither {' nor '.join(choices)}: set it to one of them.")
        return value.lower()

    def bool(self, var, default=environ.Env.NOTSET):
        """Return whether a variable is on (1, true, yes, on) or off (0, false, no, off), in any case."""
        value = self.get_value(var, default=default)
        if value is default:
            return value
        if value.lower() not in WORDS:
            raise ImproperlyConfigured(f"{var} is neither true nor false: set it to one of them.")
        return WORDS[value.lower()]

    def int(self, var, default=environ.Env.NOTSET, least=0, most=MOST, zero="0"):
        """Return a whole number from `least` to `most`; `zero` is what the message calls 0."""
        value = self.get_value(var, default=default)
        if value is default:
            return value
        number = whole_number(value, most)
        if number is None or number < least:
            raise ImproperlyConfigured(f"{var} is not a number from {least or zero} to {most}: correct it.")
        return number

    def list(self, var, cast=None, default=environ.Env.NOTSET, length=None, example=""):
        """Return the comma-separated values, without surrounding blanks; with `cast=int`, `length` whole numbers."""
        value = self.get_value(var, default=default, example=example)
        if value is default:
            return value
        words = [word.strip() for word in value.split(",") if word.strip()]
        if cast is None:
            if not words:
                raise ImproperlyConfigured(f"{var} has nothing between its commas: correct or unset it.")
            return words
        numbers = [whole_number(word) for word in words]
        if len(numbers) != length or value.count(",") >= length or None in numbers:
            raise ImproperlyConfigured(f"{var} is not {length} numbers as in {','.join(map(repr, default))}: correct it.")
        return numbers

    def dict(self, var, default=environ.Env.NOTSET):
        """Return `table=days,table=days` as a dictionary from texts to whole numbers."""
        value = self.get_value(var, default=default)
        if value is default:
            return value
        found = {}
        for entry in filter(None, map(str.strip, value.split(","))):
            name, _, number = (word.strip() for word in entry.partition("="))
            if not name or whole_number(number) is None or name in found:
                raise ImproperlyConfigured(f"{var} is invalid at “{entry[:40]}”: write table=days,table=days, each table once.")
            found[name] = whole_number(number)
        return found

    def keys(self, var, default=environ.Env.NOTSET):
        """Return secret keys, separated by commas.

        Raises ImproperlyConfigured for a key of fewer than SHORTEST_KEY characters, such as a piece of a key that has commas.
        """
        value = self.get_value(var, default=default)
        if value is default:
            return value
        found = [key.strip() for key in value.split(",") if key.strip()]
        if not found or min(map(len, found)) < SHORTEST_KEY:
            raise ImproperlyConfigured(
                f"{var} has a key of fewer than {SHORTEST_KEY} characters, or one with a comma, which separates keys: use keys of"
                " `openssl rand -base64 48`. A key with a comma cannot be listed: its signatures are no longer accepted."
            )
        return found

    def token(self, var, default=environ.Env.NOTSET):
        """Return a secret that an HTTP header can carry: 16 or more printable characters of ASCII."""
        value = self.get_value(var, default=default)
        if value != default and (len(value) < SHORTEST_TOKEN or not value.isascii() or not value.isprintable()):
            raise ImproperlyConfigured(
                f"{var} is not {SHORTEST_TOKEN} or more printable ASCII characters: set it to the output of `openssl rand -hex 24`."
            )
        return value

    def first(self, *variables):
        """Return the name of the first of `variables` that is set, or of the first."""
        return next((name for name in variables if name in self), variables[0])

    def db(self, var):
        """Return the DATABASES entry of a URL, None if the variable is not set. Raises InvalidURL."""
        value = self.get_value(var, default=None)
        return value and url.parse(value, variable=var)

    def urls(self):
        """Return the names of the variables that hold the URL of a PostgreSQL database, sorted."""
        return sorted(name for name, value in self.ENVIRON.items() if LIKE_A_URL.match(value))

    def refuse_urls(self):
        """Raise ImproperlyConfigured if a variable says that the site has a database, although none that is read here does."""
        # Vercel sets POSTGRES_HOST beside the URL.
        if found := [*self.urls(), *(name for name in ["POSTGRES_HOST"] if name in self)]:
            raise ImproperlyConfigured(
                f"{found[0]} is set, but neither POSTGRES_URL nor DATABASE_URL is:"
                f" set POSTGRES_URL to the URL of the database, or unset {found[0]}."
            )

    def urls_not_used(self, used, *read):
        """Return the sentence that names the variables with the URL of another database than `used`, "" without one.

        `used` is a DATABASES entry. The variables `read` are left out, and those of shadow and test databases.
        """
        names = [name for name in self.urls() if name not in read and not OF_OTHER_DATABASES.fullmatch(name)]
        names = [name for name in names if not self._is_same(used, name)]
        if not names:
            return ""
        server = f"at {used['HOST']}" if used["HOST"] else "on the local socket"
        where = f'database "{used["NAME"]}" {server}, port {used["PORT"] or 5432}'
        differ, are = ("differ", "are") if len(names) > 1 else ("differs", "is")
        return f"{used['VARIABLE']} is used: {where}. {', '.join(names)} {differ} and {are} not used."

    def _is_same(self, used, name):
        try:
            return url.is_same_database(used, url.parse(self.ENVIRON[name], variable=name))
        except ImproperlyConfigured:  # This project could not use it, whatever it names.
            return False

    def file(self, default):
        """Return the path of the `.env` file: the one that ENV_FILE names, otherwise `default` if it exists; None without one.

        Raises ImproperlyConfigured if ENV_FILE names no file: the embedded server would be used silently.
        """
        named = self.ENVIRON.get("ENV_FILE")
        path = default if named is None else Path(named)
        if path.is_file():
            return path
        if named:
            raise ImproperlyConfigured(f"ENV_FILE names {path.absolute()}, which is not a file: correct it, or unset it.")
        return None

    def read_file(self, path):
        """Add the lines of a `.env` file to the environment, which takes precedence.

        Raises ImproperlyConfigured for a line that is not `NAME=value`, without showing it.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ImproperlyConfigured(f"{path} is not UTF-8: save it as UTF-8.") from None
        except PermissionError:
            raise ImproperlyConfigured(f"{path} cannot be read: run the command as its owner.") from None
        kept = []
        for number, line in enumerate(lines, 1):
            if re.match(r"\s*($|#)", line):
                continue
            if not (found := LINE.match(line)):
                raise ImproperlyConfigured(f"Line {number} of {path} is not NAME=value: correct it.")
            name, value = found.groups()
            kept.append(f"{name}={value}")  # django-environ skips and logs a line with other blanks.
            if self.ENVIRON.get(name) == "" and LIKE_A_URL.match(
                value
            ):  # Otherwise the embedded server would be used silently.
                raise ImproperlyConfigured(
                    f"{name} is empty in the environment and set in {path}: unset it in the environment, or remove it from the file."
                )
        self.read_env(io.StringIO("\n".join(kept)))


def whole_number(text, most=MOST):
    """Return a number that is written in the digits 0 to 9, None for any other text and above `most`."""
    if not text.isascii() or not text.isdecimal() or len(text) > len(f"{most}") or int(text) > most:
        return None
    return int(text)


def kept_key(path):
    """Return the key in the file `path`, made on first use: sessions outlive a restart, and no key is in the repository.

    Raises ImproperlyConfigured if the file can be neither read nor made.
    """
    try:
        if not path.exists():
            fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(50))
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(fresh)  # The first process wins; a reader never sees a partial key.
            fresh.unlink()
        return path.read_text()
    except OSError as error:
        raise ImproperlyConfigured(
            f"{path} cannot be read or created ({error.strerror}): run the command as the project's owner, or set SECRET_KEY."
        ) from error
