"""The request to the program that keeps the repository in the sandbox, and what its report may say."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from syncd.model.entry import Entry, Kind
from syncd.sandbox.repository.agent_repository import (
    FollowReport,
)

HOME = "a" * 40
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
LINK = Entry(Kind.SYMLINK, 0o777, 1, target="caf\udce9")


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def a_file(content: bytes = b"x", mode: int = 0o644, mtime_s: int = 1) -> Entry:
    return Entry(Kind.FILE, mode, mtime_s, len(content), digest=digest(content))


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"home": HOME},
        {"state": "best", "home": HOME},
        {"state": ["done"], "home": HOME},
        {"state": "done", "home": "A" * 40},
        {"state": "done", "home": HOME + "\n"},
        {"state": "done", "home": "a" * 41},
        {"state": "done", "home": "--all"},
        {"state": "done", "home": HOME, "more": 1},
        {"state": "failed", "why": "x" * 65537},
        {"state": "failed", "why": {"a": "b"}},
    ],
)
def test_an_impossible_report(values: Any) -> None:
    """Nothing of it is believed."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, FollowReport)
