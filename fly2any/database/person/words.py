"""How a person's address and id are found in text, as PostgreSQL's regular expressions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

# Characters of an id: a short one is a word of its own in many texts, so it counts only as a whole value; a long one counts anywhere.
SHORT, LONG = 8, 16
ENOUGH = 3
# How else JSON, arrays, composites, SQL and HTML write a character.
NAMED = {
    "@": ("&commat;",),
    '"': (r'\\+"', '""', "&quot;"),
    "\\": (r"\\+",),
    "'": ("''", "&apos;"),
    "&": ("&amp;",),
    "<": ("&lt;",),
    ">": ("&gt;",),
}
# What else than letters and digits may be in an address before the @. "=" may, but is what separates a name from its value.
MARKS = "!#$&'*+/?^`{|}~"
HEX = "|".join(f"{ord(mark):02x}" for mark in f"{MARKS}._%-")
ESCAPES = r"\\+u[0-9a-f]{4}|%[0-9a-f]{2}|&#?[[:alnum:]]+;"
ENDS = rf"\\+[nrtbf]|\\+[0-7]{{3}}|\\+u(?!00(?:{HEX}))[0-9a-f]{{4}}|%(?!{HEX})[0-9a-f]{{2}}|&#?[[:alnum:]]+;"
# What an address may begin after: nothing, or what cannot belong to it, also written as an escape. Marks may stand in between,
# as quotes do; after a letter they are a part of the word, as in o'brien.
BEFORE = rf"((?:^|[^[:alnum:]{MARKS}._%-]|{ENDS})(?:[{MARKS}]|{ESCAPES})*)"
AFTER = r"(?![[:alnum:]_-]|\.[[:alnum:]])"
BEFORE_ID = rf"(^|[^[:alnum:]_-]|\\+[nrtbf]|\\[0-7]{{3}}|{ESCAPES})"
AFTER_ID = r"(?![[:alnum:]_-])"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text as ~* finds it, as ~* finds it in bytes that are written as digits, and as LIKE finds it, in lower case, in
    what is too long for ~*.

    `parts` are for LIKE, in lower case: what ~* finds has one of them. LIKE takes a twentieth of the time.
    """

    text: str
    digits: str
    plain: tuple[str, ...]
    parts: tuple[str, ...]

    @property
    def compiled(self) -> re.Pattern[str]:
        """`text` for Python, which finds what ~* finds."""
        return _compiled(self.text)

    @property
    def compiled_digits(self) -> re.Pattern[str]:
        return _compiled(self.digits)

    def __or__(self, other: Pattern) -> Pattern:
        text, digits = f"(?:{self.text})|(?:{other.text})", f"{self.digits}|{other.digits}"
        return Pattern(text, digits, self.plain + other.plain, self.parts + other.parts)


@dataclass(frozen=True, slots=True)
class Words:
    """What a person is known by: `address` by itself, `within` also as a part of a longer word, which may be another's address."""

    address: Pattern | None
    within: Pattern | None
    id: Pattern

    @property
    def any(self) -> Pattern:
        return self.within | self.id if self.within else self.id


def words(identity: str, email: str | None) -> Words:
    """Return the patterns for an id and an e-mail address, in upper or lower case and with the escapes of JSON, URLs and HTML."""
    if len(identity) < SHORT:
        by_id = f'(^|[{{,"]){_plain(identity)}($|[}},"])'
    else:
        by_id = _plain(identity) if len(identity) >= LONG else f"{BEFORE_ID}{_plain(identity)}{AFTER_ID}"
    if not email:
        return Words(None, None, _pattern(by_id, identity))
    core = "".join(map(_letter, email))
    return Words(_pattern(f"{BEFORE}{core}{AFTER}", email), _pattern(core, email), _pattern(by_id, identity))


@cache
def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("[[:alnum:]]", r"[^\W_]").replace("[:alnum:]", r"\w"), re.IGNORECASE)


def as_digits(word: str) -> str:
    """Return the pattern for a word in bytes that are written as digits."""
    return "".join(f"(?:{letter.lower().encode().hex()}|{letter.upper().encode().hex()})" for letter in word)


def _pattern(text: str, word: str) -> Pattern:
    digits = as_digits(word)
    forms = dict.fromkeys(_lower(form) for form in (word, word.lower(), word.upper()))
    plain = tuple("%" + re.sub(r"([%_\\])", r"\\\1", form) + "%" for form in forms)
    return Pattern(text, digits, plain, (f"%{_longest(word)}%",))


def _lower(text: str) -> str:
    """Return `text` as lower() writes it in the collation "C", which knows the letters of ASCII only."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def _longest(word: str) -> str:
    """Return the longest run of a word that no escape changes, rather of what is before the @: many share what follows."""
    runs = [max(re.findall("[a-z0-9]+", part), key=len, default="") for part in (word.partition("@")[0].lower(), word.lower())]
    return runs[0] if len(runs[0]) > ENOUGH else runs[1]


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or not letter.isascii() else f"\\{letter}" for letter in text)


def _letter(letter: str) -> str:
    """Return the pattern for one character of an address."""
    if letter.isascii() and letter.isalnum():
        return letter
    forms = [_plain(letter)]
    for one in sorted({letter, letter.lower(), letter.upper()}):
        units = one.encode("utf-16-be").hex()
        forms.append("".join(rf"\\+u{units[at : at + 4]}" for at in range(0, len(units), 4)))
        forms.append("".join(f"%(?:25)*{byte:02x}" for byte in one.encode()))
        forms.append("".join(f"={byte:02x}" for byte in one.encode()))
        forms.append("".join(rf"\\+{byte:03o}" for byte in one.encode() if byte > 127))  # As encode(…, 'escape') writes bytes.
        forms.extend(f"&#0*(?:{ord(part)}|x0*{ord(part):x});" for part in one if len(one) == 1)
    forms += NAMED.get(letter, ())
    return f"(?:{'|'.join(filter(None, dict.fromkeys(forms)))})"
