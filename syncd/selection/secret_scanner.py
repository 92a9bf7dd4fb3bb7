"""Finds secrets in the content of small files: private keys, tokens of known formats, and syncd's own key.

Rules about names (`secrets.rules`) do not find a token that was pasted into a script. The search has two steps. First,
all fixed words of such secrets are searched for at once, at several GB/s, so that it adds little to a first snapshot.
Then the text around each hit is matched with the secret's format. The formats are in `secret_forms.toml`, beside this
module. So nothing is guessed by randomness alone.

In a file of any size syncd's own key is found, piece by piece.
"""

from __future__ import annotations

import base64
import hashlib
import pkgutil
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal, NamedTuple, cast

import msgspec
from msgspec import Struct
from pyperscan import BlockDatabase, Pattern, Scan

from syncd.core.checksum import hardware_based
from syncd.core.errors import SyncWarning
from syncd.selection.selection import PathPatterns, Rule

# Keys and credential files are small. Larger files are read in pieces of this size, and most of them are data.
SEARCHED_BYTES = 1 << 20
# Git too looks for a NUL in the first 8000 bytes to tell data from text.
_TEXT_PROBE_BYTES = 8000
# Increase it when the check of hits changes; a changed list of formats is detected without it.
_VERSION = 3
# A shorter key of syncd's own is a test key, and files may contain that word for other reasons.
_MIN_OWN_KEY = 16
_OWN_KEY = "syncd's own API key"


class Secret(NamedTuple):
    """A secret that was found: its kind and line, never its value. Lines of a file that is read in pieces are 0."""

    what: str
    line: int

    def __str__(self) -> str:
        return f"{self.what} in line {self.line}" if self.line else self.what

    @property
    def rule(self) -> Rule:
        """Return the secret as the rule that excludes the file."""
        return Rule("secrets", None, str(self))


_Verify = Callable[[bytes, "re.Match[bytes]"], bool]


# Words in examples of tokens; less than one in ten thousand random tokens contains one of them.
_PLACEHOLDER = re.compile(
    rb"example|placeholder|dummy|sample|change.?me|your|token|secret|redacted|1234567|abcdefg|(.)\1{5}", re.IGNORECASE
)
_MIN_DISTINCT = 10


def _is_random(_: bytes, found: re.Match[bytes]) -> bool:
    """True if the value is not a placeholder."""
    value = found["value"]
    return len(set(value)) >= _MIN_DISTINCT and not _PLACEHOLDER.search(value)


# 40 characters of base64; a SHA-1 digest has fewer kinds of characters.
_AWS_SECRET = re.compile(rb"(?<![A-Za-z0-9/+=])(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])")
_KINDS = (re.compile(rb"[A-Z]"), re.compile(rb"[g-z]"), re.compile(rb"[0-9/+]"))


def _has_aws_secret(context: bytes, found: re.Match[bytes]) -> bool:
    """True if the id has its secret key near it; the id alone is no secret, and many documents show one."""
    return b"EXAMPLE" not in found[0] and any(
        _is_random(context, secret) and all(kind.search(secret["value"]) for kind in _KINDS)
        for secret in _AWS_SECRET.finditer(context)
    )


# Between two runs of base64: line ends, also escaped ones, and characters that quote, join, comment or indent lines.
_SEPARATOR = rb"(?:\\+[nrt]|&#x?[0-9A-Fa-f]{1,2};|[^A-Za-z0-9=<\[\x80-\xff.]|\.(?!\.)){0,80}+"
_ARMOR = rb"(?:[A-Z][A-Za-z-]{2,20}: [^\r\n\\\"]{0,200}" + _SEPARATOR + rb"){0,8}+"
_BODY = re.compile(_SEPARATOR + _ARMOR + rb"(?P<body>(?:[A-Za-z0-9+/]{16,}+={0,2}+" + _SEPARATOR + rb")*+)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}")
# The shortest key, an Ed25519 key in PKCS #8, has 64.
_MIN_KEY = 60
_MIN_DISTINCT_IN_KEY = 16
# A shorter body that ends with an ellipsis or a placeholder is an excerpt in documentation.
_MAX_EXCERPT = 200
_CUT_OFF = (b"..", "…".encode(), b"<", b"[")


def _has_key(context: bytes, found: re.Match[bytes]) -> bool:
    """True if a key follows the header; in a program that searches for headers, none does."""
    match = cast("re.Match[bytes]", _BODY.match(context, found.end()))  # which matches no text, too
    body = b"".join(_BASE64.findall(match["body"]))
    if len(body) < _MIN_KEY or len(set(body)) < _MIN_DISTINCT_IN_KEY or b"EXAMPLE" in body.upper():
        return False
    return len(body) >= _MAX_EXCERPT or not context.startswith(_CUT_OFF, match.end())


def _in_base64(text: bytes) -> dict[bytes, int]:
    """Return the three forms that a text has in base64, each with the number of characters that its first four lack.

    What stands before it decides which one; characters that hold a bit of a neighbour are not part of a form.
    """
    forms = {}
    for before in range(3):
        lacking = -(-before * 8 // 6)
        forms[base64.b64encode(bytes(before) + text)[lacking : (before + len(text)) * 8 // 6]] = lacking
    return forms


# A line's end is in one of the two at most.
_BEGIN_IN_BASE64, _KEY_IN_BASE64 = _in_base64(b"-----BEGIN"), _in_base64(b"PRIVATE KEY")
_PEM_IN_BASE64 = {**_BEGIN_IN_BASE64, **_KEY_IN_BASE64}
_FIRST_RUN = re.compile(rb"[A-Za-z0-9+/]+")
_NEXT_RUN = re.compile(_SEPARATOR + rb"([A-Za-z0-9+/]{16,})")
_ENCODED_HEADER = re.compile(rb"RIVATE KEY(?: BLOCK)?-----")  # the first character may not be whole


def _has_encoded_key(context: bytes, found: re.Match[bytes]) -> bool:
    """True if a PEM file's base64, as Kubernetes or mail have it, holds a key; most hold certificates."""
    run = _FIRST_RUN.match(context, found.start())
    runs = [b"A" * _PEM_IN_BASE64[found[0]]]
    while run is not None:
        runs.append(run[run.lastindex or 0])
        run = _NEXT_RUN.match(context, run.end())
    encoded = b"".join(runs)
    text = base64.b64decode(encoded[: len(encoded) // 4 * 4])
    return any(_has_key(text, header) for header in _ENCODED_HEADER.finditer(text))


_CHECKS: dict[str, _Verify] = {
    "random": _is_random,
    "key": _has_key,
    "key in base64": _has_encoded_key,
    "AWS secret": _has_aws_secret,
}


class SecretForm(Struct, frozen=True, forbid_unknown_fields=True):
    """A form of a secret; the head of `secret_forms.toml` describes the fields."""

    name: str
    anchors: tuple[str, ...]
    pattern: str
    example: str
    check: Literal["random", "key", "key in base64", "AWS secret"] = "random"
    lead: int = 0
    before: int = 1
    behind: int = 400


class _Forms(Struct, forbid_unknown_fields=True):
    form: tuple[SecretForm, ...]


@cache
def secret_forms() -> tuple[SecretForm, ...]:
    """Return the forms of secrets that are known."""
    table = pkgutil.get_data(__package__, "secret_forms.toml")
    return msgspec.toml.decode(table or b"", type=_Forms).form


@cache
def _expression(form: SecretForm) -> re.Pattern[bytes]:
    return re.compile(form.pattern.encode())  # those of most forms are never needed


class _Hit(NamedTuple):
    """A word that was found; the first of several hits is the one that begins first, then that of the lower number."""

    start: int
    number: int
    end: int


_WordSearch = Callable[[bytes | memoryview], list[_Hit]]


def _word_search(words: list[bytes]) -> _WordSearch:
    """Return a function that finds these words in a file, all at once. It is for one thread."""
    # Vectorscan ends the process on an x86-64 without SSE4.2, which is what crc32c looks for too.
    return _vector_search(words) if hardware_based else _slow_search(words)


def _vector_search(words: list[bytes]) -> _WordSearch:
    hits: list[_Hit] = []

    def note(_: None, number: int, _start: int, end: int) -> Scan:
        hits.append(_Hit(end - len(words[number]), number, end))
        return Scan.Continue

    scanner = BlockDatabase(*(Pattern(re.escape(word)) for word in words)).build(None, note)

    def search(content: bytes | memoryview) -> list[_Hit]:
        hits.clear()
        scanner.scan(content)
        return sorted(hits)  # they are reported by their ends

    return search


def _slow_search(words: list[bytes]) -> _WordSearch:
    numbers = {word: number for number, word in reversed([*enumerate(words)])}
    expression = re.compile(b"|".join(map(re.escape, words)))

    def search(content: bytes | memoryview) -> list[_Hit]:
        return [_Hit(found.start(), numbers[found[0]], found.end()) for found in expression.finditer(content)]

    return search


class SecretSearch:
    """The search in all files that no `allowed` pattern matches. It finds `own_keys` by their value, also in data.

    Searches with the same `digest` find the same.
    """

    def __init__(self, allowed: Iterable[str] = (), *own_keys: str) -> None:
        allowed = tuple(allowed)
        self._allowed = PathPatterns(allowed)
        own = [key.encode() for key in {*own_keys} if len(key) >= _MIN_OWN_KEY]
        self._own_keys = own
        self._anchored = [(anchor, form) for form in secret_forms() for anchor in form.anchors]
        # Own keys have lower numbers: of two hits at one position, the lower counts.
        self._find_words = _word_search([*own, *(anchor.encode() for anchor, _ in self._anchored)])
        rules = (
            _VERSION,
            SEARCHED_BYTES,
            sorted(allowed),
            [(form.name, form.pattern) for form in secret_forms()],
        )
        self.digest = hashlib.sha256(repr(rules).encode()).hexdigest()[:16]

    def in_file(self, path: str, content: bytes | memoryview) -> Secret | None:
        """Return the first secret in the file; None also if the path is allowed to hold one."""
        hits = self._find_words(content)
        is_text = bool(hits) and b"\0" not in bytes(content[:_TEXT_PROBE_BYTES])
        for start, number, end in hits:
            if number < len(self._own_keys):
                found, at = _OWN_KEY, start
            elif is_text:
                _, form = self._anchored[number - len(self._own_keys)]
                first = max(0, start - form.before)
                context = bytes(content[first : end + form.behind])
                begin = _secret_start(form, context, start - first)
                if begin is None:
                    continue
                found, at = form.name, first + begin
            else:
                continue
            return None if path in self._allowed else Secret(found, bytes(content[:at]).count(b"\n") + 1)
        return None

    def in_pieces(self, path: str) -> Callable[[bytes], Secret | None]:
        """Return what finds syncd's own keys in a larger file, when it is called with each piece of it in turn."""
        keys, end = () if path in self._allowed else self._own_keys, b""
        overlap = max(map(len, keys), default=_MIN_OWN_KEY) - 1

        def found(piece: bytes) -> Secret | None:
            nonlocal end
            text = end + piece
            end = text[-overlap:]
            return Secret(_OWN_KEY, 0) if any(key in text for key in keys) else None

        return found


def _secret_start(form: SecretForm, context: bytes, anchor: int) -> int | None:
    """Return the position of the secret that the anchor belongs to; None if there is none.

    Other anchors are not examined: a file of a hundred thousand ids would otherwise take minutes.
    """
    expression, is_secret = _expression(form), _CHECKS[form.check]
    if not form.lead:
        match = expression.match(context, anchor)
        return anchor if match is not None and is_secret(context, match) else None
    for match in expression.finditer(context, max(0, anchor - form.lead)):
        if match.start() > anchor:
            break
        if match.end() > anchor and is_secret(context, match):
            return match.start()
    return None


def sent_secret_warning(path: str) -> SyncWarning:
    """Return the warning about a secret in a file that was sent earlier, and is now deleted or excluded."""
    what = f"in {path!r} a secret was found here, and what was sent of it before may still be in the sandbox"
    remedy = 'with sandbox.deletions = "mirror" syncd removes it there; another sandbox does not have it'
    return SyncWarning(f"secret:{path}", what, remedy)


def secret_warning(path: str, secret: Secret, *, sent: bool) -> SyncWarning:
    """Return the warning about a file that is excluded because of a secret; `sent`: an earlier version was sent."""
    still_there = ", but what was sent of it before may still be in the sandbox" if sent else ""
    what = f"{path!r} holds {secret} and is excluded{still_there}"
    return SyncWarning(
        f"secret:{path}", what, "take it out, or allow the path in workspace.allow_secrets with `syncd config edit`"
    )
