"""Properties of an expression that follow from its text, as PostgreSQL prints it; expressions_on_server.py asks the server."""

from __future__ import annotations

import re
from collections.abc import Iterator

TEXT = r"'(?:[^']|'')*'"
CONSTANT = re.compile(rf"(?:{TEXT}(?:::[\w \"]+)?|\(?-?[\d.]+\)?(?:::\w+)?|true|false)")
# Only PostgreSQL's own types, because a cast to a domain runs its checks.
PLAIN = re.compile(rf"(?:{TEXT}(?:::(?:text|smallint|integer|bigint|numeric))?|[\d.]+|true|false)?")
# Calls that return another value each time; a value of 52 random bits or more is another one for our purposes.
_DISTINCT = re.compile(rf"\b(?:nextval\({TEXT}::regclass\)|(?:gen_random_uuid|uuidv7|uuid_generate_v\w+|random)\(\))")
_DIGEST = re.compile(
    rf"(?:md5\((?P<whole>.+)\)|(?:replace|translate)\((?P<bare>\(?gen_random_uuid\(\)\)?::text), '-'::text, {TEXT}::text\))"
)
_LITERAL = rf"(?:{TEXT}::[\w .\"]+(?:\[\])?|\(?-?\d{{1,4}}\)?(?:::\w+)?|true|false)"
_LITERALS = re.compile(rf"{_LITERAL}|ARRAY\[(?:{_LITERAL}(?:, {_LITERAL})*)?\](?:::[\w .\"]+\[\])?")
_NEW_VALUES = re.compile(
    rf"(?P<kept>{TEXT})|\bnextval\((?:{TEXT}::regclass|\((?P<sequence>{TEXT})::text\)::regclass)\)"
    r"|\b(?P<name>gen_random_uuid|uuidv4|uuidv7|random|clock_timestamp|timeofday)\(\)"
)
_A_VALUE = {
    "gen_random_uuid": "'00000000-0000-4000-8000-000000000000'::uuid",
    "uuidv4": "'00000000-0000-4000-8000-000000000000'::uuid",
    "uuidv7": "'00000000-0000-7000-8000-000000000000'::uuid",
    "random": "0.5::double precision",
    "clock_timestamp": "now()",
    "timeofday": "(now())::text",
}
# Functions that never return a negative number and never raise an error.
COUNTS = {"length", "char_length", "character_length", "octet_length", "bit_length", "cardinality", "strpos", "num_nulls", "num_nonnulls"}  # fmt: skip
# Names, comparisons and these functions never raise an error, nor do casts to text.
TOTAL = {*COUNTS, "lower", "upper", "coalesce", "nullif", "md5", "btrim", "ltrim", "rtrim", "left", "right", "reverse"}  # fmt: skip
# A tsvector holds less than 1 MB of words, which a text that left() cuts to fewer than 100,000 characters cannot exceed.
SEARCHED = re.compile(r"\bto_tsvector\(")
_CUT_AND_SEARCHED = re.compile(r'\bto_tsvector(?=\((?:¶, )?\(?"left"\((?:[^()]|\([^()]*\))*, \d{1,5}\))')
NEVER_RAISING = {
    "=",
    "<>",
    "<",
    ">",
    "<=",
    ">=",
    "||",
}  # Operators. A pattern, after any other, may raise unless it is a constant.
# Assigned to these types, a value that is too long is refused; an explicit cast would cut it.
_CUT_BY_CASTS = re.compile(r"(?:character|bit)\b")
_CHANGING = re.compile(
    r"\b(?:(?:now|\w+_timestamp|timeofday|age|current_setting|inet_\w+_(?:addr|port)|pg_backend_pid|current_schemas?|current_database"
    r"|pg_has_role|has_\w+_privilege)\"?\(|CURRENT_\w+|SESSION_USER|LOCALTIME|LOCALTIMESTAMP)"
)
_KEEPING = re.compile(rf"(?:{TEXT}::text \|\| )?(?P<kept>\S.*?)(?: \|\| {TEXT}::text)?")
_CAST = re.compile(r"(?P<kept>.+)::(?:text|character varying)")
_REPLACED = re.compile(rf"COALESCE\((?P<kept>.+), {TEXT}(?:::[\w ]+)?\)")
_REVERSED = re.compile(r"reverse(?P<kept>\(.+\))")


def is_total(expression: str) -> bool:
    """Return whether its text shows that an expression never raises an error."""
    bare = _CUT_AND_SEARCHED.sub("", re.sub(rf"{TEXT}(?:::[\w ]+)?", "¶", expression))
    # Without names, casts, and patterns that are constants: one that is not valid fails in every row, which samples show.
    symbols = re.sub(r'"(?:[^"]|"")*"|::| [!~*]+ ¶', "", bare)
    operators = set(re.findall(r"[-+*/<>=~!@#%^&|`?]+", symbols))
    if "||" in operators and re.search(r"\[|jsonb", bare):
        return False  # Arrays and JSON cannot always be joined.
    calls = {name.lower() for name in re.findall(r"(\w+)\(", bare)}
    casts = set(re.findall(r"::([\w ]+\w)", bare))
    keywords = {"and", "or", "not", "in", "any", "is"}
    return calls <= TOTAL | keywords and casts <= {"text", "text[]", "character varying"} and operators <= NEVER_RAISING


def is_literal(default: str, type_: str) -> bool:
    """Return whether a default is a value that a column of the type can hold: PostgreSQL evaluates nothing to store it."""
    return "(" not in type_ and _LITERALS.fullmatch(default) is not None


def with_column_replaced(expression: str, name: str, by: str) -> str:
    """Return an expression with `by` in place of the column `name`: not in a text, and not as a type or a function."""
    bare = rf'"{re.escape(name.replace(chr(34), chr(34) * 2))}"|(?<![\w$".:]){re.escape(name)}(?![\w$"(])'
    return re.sub(rf"(?P<kept>{TEXT})|{bare}", lambda match: match["kept"] or by, expression)


def calls_nothing(condition: str) -> bool:
    """Return whether the text of a condition has only names, IS NULL and logical operators, so that it runs no function."""
    bare = re.sub(r'"(?:[^"]|"")*"', "x", condition)
    return re.fullmatch(r"[\w\s()]+", bare) is not None and re.search(r"\w\(", bare) is None


def without_new_values(expression: str) -> tuple[str, set[str]]:
    """Return an expression without the volatile functions that always return a new value, and the sequences that it finds by name.

    A value that they may return replaces each call.
    """
    sequences = {match["sequence"] for match in _NEW_VALUES.finditer(expression) if match["sequence"]}
    return _NEW_VALUES.sub(lambda match: match["kept"] or _A_VALUE.get(match["name"], "1::bigint"), expression), {
        name[1:-1].replace("''", "'") for name in sequences
    }


def assigned(expression: str, type_: str) -> str:
    """Return the expression for the value that a column of a type, not a domain, stores."""
    if _CUT_BY_CASTS.match(type_):
        return f"(SELECT v FROM json_to_record(json_build_object('v', ({expression})::text)) AS r (v {type_}))"
    return f"(({expression})::{type_})"


def changes(expression: str) -> bool:
    """Return whether the value of an expression depends on the time or on the session."""
    return _CHANGING.search(re.sub(TEXT, "", expression)) is not None


def is_distinct(default: str) -> bool:
    """Return whether its text shows that a default is different in each row."""
    while match := _DIGEST.fullmatch(default):
        default = match["whole"] or match["bare"]
    one, made = _DISTINCT.subn("made", default)
    return made == 1 and distinguishing_column(one, {"made"}, {"made"}) is not None


def counts(expression: str) -> Iterator[str]:
    """Yield the calls in an expression that never return a negative number or raise an error."""
    for match in re.finditer(rf"(?<![\w.\"])(?:{'|'.join(sorted(COUNTS))})\(", expression):
        call = expression[match.start() : _end(expression, match.end() - 1)]
        if is_total(call):
            yield call


def distinguishing_column(expression: str, names: set[str], required: set[str]) -> str | None:
    """Return the column of `names` whose distinct values always give distinct values of `expression`, None if there is none.

    COALESCE gives NULL the value of another row, so its column must be in `required` (NOT NULL).
    """
    text, kept = expression, True
    while kept:
        while text.startswith("(") and _end(text, 0) == len(text):
            text = text[1:-1]
        bare = text.strip('"').replace('""', '"')
        if bare in names:
            return bare
        kept = False
        for pattern in (_KEEPING, _CAST, _REVERSED, _REPLACED):
            if (match := pattern.fullmatch(text)) and match["kept"] != text and _is_one(match["kept"]):
                if pattern is _REPLACED:
                    names = names & required
                text, kept = match["kept"], True
                break
    return None


def _is_one(text: str) -> bool:
    """Return whether `text` is a name, a call or one expression in parentheses, rather than part of one."""
    text = re.sub(r"(::(text|character varying))+$", "", text)
    match = re.fullmatch(r'(?:"(?:[^"]|"")+"|\w+)', text)
    opened = re.match(r"\w*\(", text)
    return match is not None or (opened is not None and _end(text, opened.end() - 1) == len(text))


def _end(text: str, start: int) -> int:
    """Return where the parenthesis at `start` is closed."""
    depth, place = 0, start
    for match in re.finditer(rf'{TEXT}|"(?:[^"]|"")*"|[()]', text[start:]):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        place = start + match.end()
        if depth == 0:
            break
    return place
