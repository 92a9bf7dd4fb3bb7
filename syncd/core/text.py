"""Makes foreign text safe for one line of a log or a terminal, and removes secrets from it."""

from __future__ import annotations

import re
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
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= longest else text[: longest - 1] + "…"


def shown_path(path: str) -> str:
    """Return a path for people: bytes that are not UTF-8 and control characters are escaped."""
    if path.isprintable():
        return path
    return "".join(
        f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c if c.isprintable() else repr(c)[1:-1]
        for c in path
    )


def printable_json(document: str) -> str:
    """Return JSON on one line whose texts hold nothing that a terminal obeys: it is escaped as JSON has it."""
    if document.isprintable():
        return document
    return "".join(c if c.isprintable() else re.sub("....", r"\\u\g<0>", c.encode("utf-16-be").hex()) for c in document)
