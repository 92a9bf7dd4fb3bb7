"""Each form of a secret in the table: its example is found, what nearly is one is not. This file holds no secret."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from string import ascii_letters, ascii_uppercase, digits

import pytest

from syncd.selection import secret_scanner
from syncd.selection.secret_scanner import SecretForm, SecretSearch, secret_forms


def _of(alphabet: str) -> Callable[[int], str]:
    """Return a function that makes a text of so many characters, which look random but are the same each time."""

    def text(length: int) -> str:
        seeds = (f"{alphabet}{number}".encode() for number in range(length // 32 + 1))
        return "".join(alphabet[byte % len(alphabet)] for seed in seeds for byte in hashlib.sha256(seed).digest())[
            :length
        ]

    return text


_base64 = _of(ascii_letters + digits + "+/")
_KINDS: dict[str, Callable[[int], str]] = {
    "": _of(ascii_letters + digits),
    " hex": _of("0123456789abcdef"),
    " upper": _of(ascii_uppercase + "234567"),
    " digits": _of(digits),
    " base64": _base64,
    " base64 of base64": lambda length: base64.b64encode(f"\n{_base64(length)}\n\n".encode()).decode(),
}
_GAP = re.compile(r"\{(\d+)( [a-z0-9 ]+)?\}")
FORMS = secret_forms()
NAMES = [f"{form.name} {form.anchors[0]}" for form in FORMS]


def _filled(example: str) -> str:
    return _GAP.sub(lambda gap: _KINDS[gap[2] or ""](int(gap[1])), example)


def _found(text: str) -> str | None:
    secret = SecretSearch().in_file("a", text.encode())
    return None if secret is None else str(secret)


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_an_example_is_found(form: SecretForm) -> None:
    """In a file of its own, and in a line among others, with each of the words by which it is found."""
    assert any(anchor in form.example for anchor in form.anchors)
    texts = [form.example]
    if form.check == "random" and form.anchors[0] in form.example:
        texts += [form.example.replace(form.anchors[0], anchor) for anchor in form.anchors]
    for text in texts:
        for line in ("{}", "KEY={}\n", "first\nkey: '{}'\nmore\n", '{{"key":"{}"}}', "https://me:{}@host/"):
            assert str(_found(line.format(_filled(text)))).startswith(f"{form.name} in line "), (text, line)


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_a_near_miss_is_none(form: SecretForm) -> None:
    """One character less, all characters the same, or a word of the documentation, is no secret."""
    *_, last = _GAP.finditer(form.example)
    shorter = f"{form.example[: last.start()]}{{{int(last[1]) - 1}{last[2] or ''}}}{form.example[last.end() :]}"
    assert _found(f"key: '{_filled(shorter)}'\n") is None
    for word in ("x", "a", "0", "EXAMPLE", "your-key-", "..."):
        same = _GAP.sub(lambda gap, word=word: (word * int(gap[1]))[: int(gap[1])], form.example)  # type: ignore[misc]
        assert _found(f"key: '{same}'\n") is None, same


def test_anchors_are_long() -> None:
    """Each has three characters at least, or the search would be slow."""
    assert [anchor for form in FORMS for anchor in form.anchors if len(anchor) < 3] == []


def test_the_base64_of_a_header() -> None:
    """The table has all the forms that a header may take, and words by which each is found."""
    (form,) = (form for form in FORMS if form.check == "key in base64")
    forms = [text.decode() for text in secret_scanner._PEM_IN_BASE64]
    assert form.pattern.split("|") == forms
    assert all(text.startswith(anchor) for text, anchor in zip(forms, form.anchors, strict=True))
