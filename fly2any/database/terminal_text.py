"""Makes text from files, databases and other machines safe for a terminal."""

import re

# Control characters other than line feed and tab, including those that begin an escape sequence; characters that reverse or
# hide the text beside it; surrogates, for bytes that are not UTF-8. Lines of Unicode's own, which would forge one of ours.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""Return `text` with each character that a terminal would obey, or not show, as \uXXXX, which JSON reads back."""
    return UNPRINTABLE.sub(_escaped, text)


def one_line(text: str) -> str:
    r"""Return `text` as printable() does, with ends of lines and tabs as \uXXXX too: for a name or a value within a line."""
    return printable(text).replace("\n", "\\u000a").replace("\t", "\\u0009")


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[first : first + 4]}" for first in range(0, len(units), 4))
