"""Tells by a small file's content whether it holds a secret: a private key, a token of a known form, syncd's own key.

Names (`policy.builtin_rules`) cannot tell of a token pasted into a script. The search has two steps. All the words by
which such secrets are known are looked for at once, at several GB/s, so that a first snapshot hardly notices; only what
stands around a hit is then judged by its form. A form is here if its issuer chose it to be recognizable and little else
looks like it. So there is no guessing by randomness alone, and no form that is public by design (browser keys).

Forms after the issuers' own documentation, and RFC 7468 and RFC 4880 for keys in text.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from syncd.core.warning import SyncWarning
from syncd.selection.rules import Rule
from syncd.selection.secret_allowlist import SecretAllowlist

# Keys and files of credentials are small. Larger files are packed in parts, and most are data.
LARGEST_BYTES = 1 << 20
# As git tells text from data.
_TELLING_BYTES = 8000
# Raise it with a change in how hits are judged; changed forms are noticed by themselves.
_VERSION = 1
# A shorter key of syncd's own is one of a trial, and a word that files may hold for other reasons.
_LEAST_OWN_KEY = 16
_OWN_KEY = "syncd's own API key"


class Secret(NamedTuple):
    """What was found and where, never the value."""

    what: str
    line: int

    def __str__(self) -> str:
        return f"{self.what} in line {self.line}"

    @property
    def rule(self) -> Rule:
        """As the rule that leaves the file out."""
        return Rule("secrets", None, str(self))


class Search(Protocol):
    """Looks for secrets in files' contents. Two of the same `identity` find the same; an empty one finds none."""

    identity: str

    def in_file(self, path: str, content: bytes | memoryview) -> Secret | None:
        """The first secret in the file, if it may not leave with it."""


class NoSearch:
    """Where everything may leave."""

    identity = ""

    def in_file(self, path: str, content: bytes | memoryview) -> Secret | None:  # noqa: ARG002 - as `Search`
        """Nothing is a secret."""
        return None


_Proof = Callable[[bytes, "re.Match[bytes]"], bool]


class _Form(NamedTuple):
    """A kind of secret. `expression` begins with an anchor, or up to `lead` bytes before it.

    Its proof sees so many bytes before and behind the anchor.
    """

    what: str
    anchors: tuple[bytes, ...]
    expression: bytes
    proof: _Proof
    lead: int = 0
    before: int = 1
    behind: int = 400


# Words of people who write about tokens; as part of a random one each is rarer than one in ten thousand.
_PLACEHOLDER = re.compile(
    rb"example|placeholder|dummy|sample|change.?me|your|token|secret|redacted|1234567|abcdefg|(.)\1{5}", re.IGNORECASE
)
_LEAST_DISTINCT = 10


def _random(_: bytes, found: re.Match[bytes]) -> bool:
    """The value is no placeholder."""
    value = found["value"]
    return len(set(value)) >= _LEAST_DISTINCT and not _PLACEHOLDER.search(value)


# 40 characters of base64; those of a SHA-1 are fewer kinds.
_AWS_SECRET = re.compile(rb"(?<![A-Za-z0-9/+=])(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])")
_KINDS = (re.compile(rb"[A-Z]"), re.compile(rb"[g-z]"), re.compile(rb"[0-9/+]"))


def _with_aws_secret(context: bytes, found: re.Match[bytes]) -> bool:
    """The id alone is no secret, and stands in many documents; what counts is the key that belongs to it."""
    return b"EXAMPLE" not in found[0] and any(
        _random(context, secret) and all(kind.search(secret["value"]) for kind in _KINDS)
        for secret in _AWS_SECRET.finditer(context)
    )


# Between two runs of base64: line ends, written out too, and what quotes, joins, comments or indents lines in source.
_JOINT = rb"(?:\\+[nrt]|&#x?[0-9A-Fa-f]{1,2};|[^A-Za-z0-9=<\[\x80-\xff.]|\.(?!\.)){0,80}+"
_ARMOR = rb"(?:[A-Z][A-Za-z-]{2,20}: [^\r\n\\\"]{0,200}" + _JOINT + rb"){0,8}+"
_BODY = re.compile(_JOINT + _ARMOR + rb"(?P<body>(?:[A-Za-z0-9+/]{16,}+={0,2}+" + _JOINT + rb")*+)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}")
# An Ed25519 key in PKCS #8, the shortest there is, has 64.
_LEAST_KEY = 60
_LEAST_DISTINCT_IN_KEY = 16
# What is cut off by an ellipsis or a placeholder before this is an excerpt, as documentation shows it.
_MOST_EXCERPT = 200
_CUT_OFF = (b"..", "…".encode(), b"<", b"[")


def _with_key(context: bytes, found: re.Match[bytes]) -> bool:
    """The header is followed by a key, as it is not in a program that looks for headers."""
    match = _BODY.match(context, found.end())
    if match is None:
        return False
    body = b"".join(_BASE64.findall(match["body"]))
    if len(body) < _LEAST_KEY or len(set(body)) < _LEAST_DISTINCT_IN_KEY or b"EXAMPLE" in body.upper():
        return False
    return len(body) >= _MOST_EXCERPT or not context.startswith(_CUT_OFF, match.end())


_HEADER = rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_PEM_IN_BASE64 = base64.b64encode(b"-----BEGIN")[:-3]  # its last characters depend on what follows


def _with_key_within(_: bytes, found: re.Match[bytes]) -> bool:
    """Base64 of a whole PEM file, as Kubernetes keeps it; most of them are certificates."""
    text = base64.b64decode(found[0][: len(found[0]) // 4 * 4])
    header = re.match(_HEADER, text)
    return header is not None and _with_key(text, header)


_FORMS = (
    _Form(
        "a private key",
        (b"PRIVATE KEY",),
        _HEADER,
        _with_key,
        lead=40,
        before=40,
        behind=1600,
    ),
    _Form(
        "a private key in base64",
        (_PEM_IN_BASE64,),
        _PEM_IN_BASE64 + rb"[A-Za-z0-9+/]{80,}",
        _with_key_within,
        behind=2400,
    ),
    _Form(
        "a PuTTY private key", (b"Private-Lines: ",), rb"Private-Lines: \d+\s+(?P<value>[A-Za-z0-9+/]{24,})", _random
    ),
    _Form("an age secret key", (b"AGE-SECRET-KEY-1",), rb"AGE-SECRET-KEY-1(?P<value>[A-Z0-9]{58})", _random),
    _Form(
        "an AWS access key with its secret",
        (b"AKIA", b"ASIA"),
        rb"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])",
        _with_aws_secret,
        before=500,
        behind=500,
    ),
    _Form(
        "a GitHub token",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"),
        rb"\bgh[pousr]_(?P<value>[A-Za-z0-9]{36,})",
        _random,
    ),
    _Form("a GitHub token", (b"github_pat_",), rb"\bgithub_pat_(?P<value>[A-Za-z0-9]{22}_[A-Za-z0-9]{59})", _random),
    _Form("a GitLab token", (b"glpat-",), rb"\bglpat-(?P<value>[\w-]{20,})", _random),
    _Form(
        "a Slack token",
        (b"xoxa-", b"xoxb-", b"xoxe-", b"xoxe.", b"xoxp-", b"xoxr-", b"xoxs-"),
        rb"\bxox[abeprs](?:\.xox[bp])?-(?P<value>\d[0-9A-Za-z-]{23,})",
        _random,
    ),
    _Form("a Slack token", (b"xapp-",), rb"\bxapp-\d-[A-Z0-9]+-\d+-(?P<value>[0-9a-f]{32,})", _random),
    _Form("a Stripe key", (b"sk_live_", b"rk_live_"), rb"\b[rs]k_live_(?P<value>[A-Za-z0-9]{20,})", _random),
    _Form("an npm token", (b"npm_",), rb"\bnpm_(?P<value>[A-Za-z0-9]{36})(?![A-Za-z0-9])", _random),
    _Form(
        "a registry's token",
        (b"_authToken",),
        rb"_authToken[\"']?\s*[=:]\s*[\"']?(?P<value>(?=[A-Za-z+/=_-]*[0-9])[A-Za-z0-9+/=_-]{20,})",
        _random,
    ),
    _Form("a PyPI token", (b"pypi-AgE",), rb"\bpypi-AgE(?P<value>[\w-]{60,})", _random),
    _Form("an Anthropic key", (b"sk-ant-",), rb"\bsk-ant-[a-z]{2,10}\d\d-(?P<value>[\w-]{32,})", _random),
    _Form(
        "an OpenAI key",
        (b"T3BlbkFJ",),
        rb"\bsk-(?P<value>[\w-]{16,190}T3BlbkFJ[\w-]{16,})",
        _random,
        lead=200,
        before=201,
    ),
    _Form(
        "an OpenAI key",
        (b"sk-proj-", b"sk-svcacct-", b"sk-admin-"),
        rb"\bsk-(?:proj|svcacct|admin)-(?P<value>[\w-]{40,})",
        _random,
    ),
)
_ANCHORS = tuple((anchor, form, re.compile(form.expression)) for form in _FORMS for anchor in form.anchors)


class SecretSearch:
    """The search, but for what `allowed` patterns name. `own_key` is looked for by its value, in data as well."""

    def __init__(self, allowed: Iterable[str] = (), own_key: str = "") -> None:
        allowed = tuple(allowed)
        self._allowed = SecretAllowlist(allowed)
        own = [own_key.encode()] if len(own_key) >= _LEAST_OWN_KEY else []
        self._others = len(own)  # the own key's number comes before them: of two at one place, the first is reported
        # Leftmost matches are what the library can look for with vector instructions.
        self._anchors = BytesAhoCorasick([*own, *(anchor for anchor, _, _ in _ANCHORS)], MatchKind.LeftmostFirst)
        rules = (_VERSION, LARGEST_BYTES, sorted(allowed), [(form.what, form.expression) for form in _FORMS])
        self.identity = hashlib.sha256(repr(rules).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def in_file(self, path: str, content: bytes | memoryview) -> Secret | None:
        """The first secret in the file, if it may not leave with it."""
        hits = self._anchors.find_matches_as_indexes(content)
        return self._judged(path, content, hits) if hits else None

    def _judged(self, path: str, content: bytes | memoryview, hits: list[tuple[int, int, int]]) -> Secret | None:
        is_text = b"\0" not in bytes(content[:_TELLING_BYTES])
        for number, start, end in hits:
            if number < self._others:
                found, at = _OWN_KEY, start
            elif is_text:
                _, form, expression = _ANCHORS[number - self._others]
                first = max(0, start - form.before)
                context = bytes(content[first : end + form.behind])
                begin = _proved(form, expression, context, start - first)
                if begin is None:
                    continue
                found, at = form.what, first + begin
            else:
                continue
            return None if path in self._allowed else Secret(found, bytes(content[:at]).count(b"\n") + 1)
        return None


def _proved(form: _Form, expression: re.Pattern[bytes], context: bytes, anchor: int) -> int | None:
    """Where the secret begins that the anchor belongs to, if it is one.

    No other that may be near: a file of a hundred thousand ids would keep the daemon for minutes.
    """
    if not form.lead:
        match = expression.match(context, anchor)
        return anchor if match is not None and form.proof(context, match) else None
    for match in expression.finditer(context, max(0, anchor - form.lead)):
        if match.start() > anchor:
            break
        if match.end() > anchor and form.proof(context, match):
            return match.start()
    return None


def sent_before(path: str) -> SyncWarning:
    """The warning about a file in the sandbox in which a secret was found here, where it is deleted or left out now."""
    what = f"in {path!r} a secret was found here, and what was sent of it before may still be in the sandbox"
    remedy = 'with sandbox.deletions = "mirror" syncd removes it there; another sandbox does not have it'
    return SyncWarning(f"secret:{path}", what, remedy)


def secret_files(path: str, secret: Secret, *, sent: bool) -> SyncWarning:
    """The warning about a file that stays home for what is in it; `sent`: an earlier version did not."""
    what = f"{path!r} holds {secret} and is left out"
    if sent:
        what += ", but what was sent of it before may still be in the sandbox"
    return SyncWarning(f"secret:{path}", what, "take it out, or allow the path in workspace.allow_secrets")
