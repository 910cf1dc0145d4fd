"""Names in the text of expressions, as PostgreSQL prints them."""

from __future__ import annotations

import re
from functools import cache

from ..sql import quote


def relative(text: str, schema: str) -> str:
    """Return `text`, in which PostgreSQL qualified each name, as it would be written inside `schema`."""

    def shortened(match: re.Match[str]) -> str:
        if match["kept"] is not None:
            return match["kept"]
        return "'" if match["constant"] is not None else ""

    return re.sub(_qualified(schema), lambda match: match["name"] or shortened(match), text)


@cache
def _qualified(schema: str) -> re.Pattern[str]:
    names = "|".join(re.escape(name) for name in dict.fromkeys([quote(schema), schema]))
    place = rf"(?:{names})\."
    # A constant of type regclass, any other constant, a name, or the beginning of a name.
    return re.compile(
        rf"""(?P<constant>'{place}(?=(?:[^']|'')*'::regclass))|(?P<kept>'(?:[^']|'')*')|(?<![\w$".]){place}|(?P<name>"(?:[^"]|"")*")"""
    )
