"""Texts for people: foreign ones made safe for one line and free of secrets; times, sizes and counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

# The characters before and after the names of a query, percent-encoded any number of times; or the quotes of a dict or
# of JSON. Names have a bounded length and match possessively, or a megabyte of `x-goog-x-goog-…` from a server would
# cost an hour.
_BEFORE = r"(?:\?|&(?:amp;)?|%(?:25)*+(?:3f|26))"
_AFTER = r"(?:%(?:25)*+3d|[\"']?\s*[=:]\s*[\[\"']*)"
_VALUE = r"[^\s\"'<>&]*"
# All parameters of a V4 signature; of the older form, the signer's name and the signature.
_SIGNED_QUERY = re.compile(
    rf"(?i){_BEFORE}?x-(?:goog|amz)-[a-z-]{{1,64}}+{_AFTER}{_VALUE}|{_BEFORE}(?:signature|googleaccessid){_AFTER}{_VALUE}"
)
_BEARER = re.compile(r"(?i)bearer(?::?\s+|(?:%(?:25)*+20|\+))[^\s\"']+")
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400
# The commands of one sandbox; an undo takes back the last `apply`, of whichever.
_OF_ONE_SANDBOX = re.compile(r"`syncd (?:diff|apply(?! --undo)|resolve|log|pull|saved|push|setup)\b")
# A text names so many paths at most, and a document, or a command that lists, so many.
_FEW_NAMED = 5
MOST_NAMED = 50


def redacted(text: str, secret: str = "") -> str:
    """Return the text without the secret, without the signatures of URLs, and without any bearer token."""
    if secret:
        # A server may repeat it quoted: for a URL, or for JSON by an encoder that escapes slashes.
        for form in (secret, quote(secret, safe=""), quote(secret), secret.replace("/", r"\/")):
            text = text.replace(form, "[key]")
    return _BEARER.sub("Bearer [key]", _SIGNED_QUERY.sub("", text))


def one_line(text: str, longest: int = 300) -> str:
    """Return the text on one line, at most so many characters long, with all control characters escaped."""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def shown_path(path: str) -> str:
    """Return a path for people: bytes that are not UTF-8 and control characters are escaped."""
    if path.isprintable():
        return path
    return "".join(
        f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c if c.isprintable() else repr(c)[1:-1]
        for c in path
    )


def duration(seconds: float) -> str:
    """Format a duration in one or two units: `8 s`, `3 min`, `1 h 12 min`, `2 days`. A negative one is `0 s`."""
    whole = max(0, int(seconds))
    if whole < 2 * _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < _DAY_S:
        minutes = whole % _HOUR_S // _MINUTE_S
        return f"{whole // _HOUR_S} h {minutes} min" if minutes else f"{whole // _HOUR_S} h"
    return counted(whole // _DAY_S, "day")


def ago(seconds: float) -> str:
    """Format the time since an event; `just now` also where a clock that was set back makes it negative."""
    return "just now" if seconds < 2 else f"{duration(seconds)} ago"


def countdown(seconds: float) -> str:
    """Format the time that is left as a clock does: `0:08`, `1:02:03`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, _HOUR_S)
    minutes, left = divmod(rest, _MINUTE_S)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def counted(number: int, thing: str) -> str:
    """Format a count with its noun: `1 sync`, `1,204 syncs`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def few(names: Sequence[str], number: int, see: str = "") -> list[str]:
    """Return the first of `number` names, and then `and 7 more`, with a place where all are to be seen."""
    first = [*names[:_FEW_NAMED]]
    return [*first, f"and {number - len(first):,} more{see}"] if number > len(first) else first


def size(size_bytes: int) -> str:
    """Format a size: `950 bytes`, `5,003 KiB`, `61.2 MiB`."""
    if size_bytes < 10_000:
        return counted(size_bytes, "byte")
    if size_bytes < 10 << 20:
        return f"{size_bytes / 1024:,.0f} KiB"
    return f"{size_bytes / (1 << 20):,.1f} MiB" if size_bytes < 10 << 30 else f"{size_bytes / (1 << 30):,.0f} GiB"


def for_sandbox(text: str, name: str) -> str:
    """Return the text with commands that name this sandbox, one of several."""
    return _OF_ONE_SANDBOX.sub(rf"\g<0> --sandbox {name}", text)


def split_remedy(message: str) -> tuple[str, str]:
    """Split a message `what: remedy` at its last colon, unless that colon is within quotes.

    Errors and warnings have this form. A message without a remedy may be split at another colon; nothing is lost, as
    both parts are shown.
    """
    what, colon, remedy = message.rpartition(": ")
    if not colon or what.count("'") % 2 or what.count('"') % 2 or what.count("`") % 2:
        return message, ""
    return what, remedy
