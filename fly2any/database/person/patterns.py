"""PostgreSQL regular expressions that find a person's address and id in text."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

# Lengths of an id. A shorter one may be an ordinary word, so only a whole value matches; one of 16 or more matches anywhere.
SHORT, LONG = 8, 16
LARGE = 32 << 20  # Bytes. A larger text exceeds the memory of ~*, so escapes in it are not found.
MIN_PART = 3  # A part of the address must be longer than this to be searched for first.
# Other ways in which JSON, arrays, composites, SQL and HTML write a character.
NAMED = {
    "@": ("&commat;",),
    '"': (r'\\+"', '""', "&quot;"),
    "\\": (r"\\+",),
    "'": ("''", "&apos;"),
    "&": ("&amp;",),
    "<": ("&lt;",),
    ">": ("&gt;",),
    "+": ("&plus;",),
    "%": ("&percnt;",),
    "_": ("&lowbar;",),
    ".": ("&period;",),
}
# The letters of most scripts: in the locale C, [:alnum:] has ASCII letters only.
LETTERS = "\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02c1\u0370-\u1fff\u3040-\ud7ff"
# Characters besides letters and digits that an address may contain before the @; "=" too, but it separates names from values.
MARKS = "!#$&'*+/?^`{|}~"
# An address: text on both sides of one @. Any other text may be stored as one, even a domain or an ordinary word. It is not searched for
# as a word: it would be found in the addresses of other people, and in texts about other things. Nor may quotes and brackets around an
# address be part of it.
ADDRESS = re.compile(r'(?:"[^"]+"|[^\s@"<>()\[\],;:\\]+)@(?:[^\s\x00-,/:-@\[-^`{-\x7f]*[^\s\x00-/:-@\[-`{-\x7f]|\[[\w.:-]+\])')
HEX = "|".join(f"{ord(mark):02x}" for mark in f"{MARKS}._%-")
ESCAPES = r"\\+u[0-9a-f]{4}|\\+x[0-9a-f]{2}|%[0-9a-f]{2}|&#?[[:alnum:]]+;"
ENDS = rf"\\+[nrtbf]|\\+[0-7]{{3}}|\\+u(?!00(?:{HEX}))[0-9a-f]{{4}}|\\+x(?!{HEX})[0-9a-f]{{2}}|%(?!{HEX})[0-9a-f]{{2}}|&#?[[:alnum:]]+;"
# What may precede an address: the start, or a character that cannot belong to it, even as an escape. Marks such as quotes may come
# in between; after a letter they are part of the word, as in o'brien.
BETWEEN = rf"(?:[{MARKS}]|{ESCAPES})*"
BEFORE = rf"((?:^|[^[:alnum:]{LETTERS}{MARKS}._%-]|{ENDS}){BETWEEN})"
AFTER = rf"(?![[:alnum:]{LETTERS}_-]|\.[[:alnum:]{LETTERS}])"
BEFORE_ID = rf"(^|[^[:alnum:]{LETTERS}_-]|\\+[nrtbf]|\\[0-7]{{3}}|{ESCAPES})"
AFTER_ID = rf"(?![[:alnum:]{LETTERS}_-])"
# Python tries a repetition again from each character, which takes quadratic time in a value that another role fills with escapes.
# PostgreSQL's own matcher does not.
BOUNDED = {
    BETWEEN: BETWEEN.removesuffix("*") + "{0,16}",
    r"\\+": r"\\{1,63}",
    "(?:25)*": "(?:25){0,16}",
    "&#0*": "&#0{0,16}",
    "|x0*": "|x0{0,16}",
    "[[:alnum:]]+": "[[:alnum:]]{1,32}",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """Patterns for a text: `text` for ~*, `digits` for ~* on bytes in hex, and `plain` for LIKE on values too long for ~*.

    `parts` are a prefilter for LIKE, which takes a twentieth of the time of ~*: every match contains one of them.
    """

    text: str
    digits: str
    plain: tuple[str, ...]
    parts: tuple[str, ...]

    @property
    def forms(self) -> list[str]:
        """The texts that `plain` finds."""
        return [re.sub(r"\\(.)", r"\1", one[1:-1]) for one in self.plain]

    @property
    def compiled(self) -> re.Pattern[str]:
        """`text` for Python's re, with the same matches as ~* except for long repetitions (BOUNDED)."""
        return _compiled(self.text)

    @property
    def compiled_digits(self) -> re.Pattern[str]:
        return _compiled(self.digits)

    def __or__(self, other: Pattern) -> Pattern:
        text, digits = f"(?:{self.text})|(?:{other.text})", f"{self.digits}|{other.digits}"
        return Pattern(text, digits, self.plain + other.plain, self.parts + other.parts)


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns for a person: `address` as a whole word, `within` also inside a longer word, which may be another address.

    If the stored address is not a valid one, `address` is the whole value, `within` also an element of a list or a string in JSON.

    `within` also matches a space for a plus sign, because a form decodes a + in a URL to a space.
    """

    address: Pattern | None
    within: Pattern | None
    id: Pattern

    @property
    def any(self) -> Pattern:
        return self.within | self.id if self.within else self.id


def patterns_for(identity: str, email: str | None) -> Patterns:
    """Return the patterns for an id and an e-mail address, in any case and with the escapes of JSON, URLs and HTML."""
    if len(identity) < SHORT:
        by_id = f'(^|[{{,"]){_plain(identity)}($|[}},"])'
    else:
        by_id = _plain(identity) if len(identity) >= LONG else f"{BEFORE_ID}{_plain(identity)}{AFTER_ID}"
    if not email:
        return Patterns(None, None, _pattern(by_id, identity))
    core = "".join(map(_letter, email))
    if not is_address(email):
        return Patterns(_whole(f"^(){core}$", email), _whole(f'(^|[{{,"]){core}($|[}},"])', email), _pattern(by_id, identity))
    decoded = "".join(rf"(?:{_letter(letter)}|\s)" if letter == "+" else _letter(letter) for letter in email)
    return Patterns(_pattern(f"{BEFORE}{core}{AFTER}", email), _pattern(decoded, email), _pattern(by_id, identity))


def same_address(email: str) -> str:
    """Return the pattern for an address in any case, also of letters whose case the database's locale does not know."""
    letters = ("|".join(map(_plain, sorted(_cases(letter)))) for letter in email)
    return f"^{''.join(f'(?:{forms})' for forms in letters)}$"


def ascii_lower(text: str) -> str:
    """Return `text` as lower() writes it in the collation "C", which changes ASCII letters only."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def is_address(email: str) -> bool:
    """Return whether a person's stored address is one, so that it is searched for in any text."""
    return ADDRESS.fullmatch(email) is not None


@cache
def _compiled(text: str) -> re.Pattern[str]:
    for repetition, bounded in BOUNDED.items():
        text = text.replace(repetition, bounded)
    return re.compile(text.replace("[[:alnum:]]", r"[^\W_]").replace("[:alnum:]", r"\w"), re.IGNORECASE)


def as_digits(word: str) -> str:
    """Return the pattern for a word in bytes written as hex digits."""
    return "".join(f"(?:{letter.lower().encode().hex()}|{letter.upper().encode().hex()})" for letter in word)


def _pattern(text: str, word: str) -> Pattern:
    digits = as_digits(word)
    forms = dict.fromkeys(ascii_lower(form) for form in (word, word.lower(), word.upper()))
    plain = tuple("%" + re.sub(r"([%_\\])", r"\\\1", form) + "%" for form in forms)
    return Pattern(text, digits, plain, (f"%{_longest(word)}%",))


def _whole(text: str, word: str) -> Pattern:
    """Return the pattern for a whole value, which is never large."""
    return replace(_pattern(text, word), digits=rf"[\\]x{as_digits(word)}(?![0-9a-f])", plain=())


def _longest(word: str) -> str:
    """Return the longest part of a word that no escape changes, preferably before the @, because many share the domain."""
    runs = [max(re.findall("[a-z0-9]+", part), key=len, default="") for part in (word.partition("@")[0].lower(), word.lower())]
    return runs[0] if len(runs[0]) > MIN_PART else runs[1]


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or not letter.isascii() else _quoted(letter) for letter in text)


def _quoted(mark: str) -> str:
    """Return the pattern for an ASCII mark; a backslash is in brackets, so that it is not taken for a repeated one (BOUNDED)."""
    return r"[\\]" if mark == "\\" else f"\\{mark}"


def _cases(letter: str) -> set[str]:
    """Return a letter in both cases: in the locale C, ~* knows the case of ASCII letters only. No other letter is the same as one of these."""
    return {one for one in (letter, letter.lower(), letter.upper()) if one.isascii() == letter.isascii()}


def _letter(letter: str) -> str:
    """Return the pattern for one character of an address."""
    if letter.isascii() and letter.isalnum():
        return letter
    forms = [_plain(letter)]
    for one in sorted(_cases(letter)):
        units = one.encode("utf-16-be").hex()
        forms += [] if letter.isascii() else [_plain(one)]
        forms.append("".join(rf"\\+u{units[at : at + 4]}" for at in range(0, len(units), 4)))
        forms.append("".join(f"%(?:25)*{byte:02x}" for byte in one.encode()))
        forms.append("".join(f"={byte:02x}" for byte in one.encode()))
        forms.append("".join(rf"\\+x{byte:02x}" for byte in one.encode()))
        forms.append("".join(rf"\\+{byte:03o}" for byte in one.encode() if byte > 127))  # The form of encode(…, 'escape').
        forms.extend(f"&#0*(?:{ord(part)}|x0*{ord(part):x});" for part in one if len(one) == 1)
    forms += NAMED.get(letter, ())
    return f"(?:{'|'.join(filter(None, dict.fromkeys(forms)))})"
