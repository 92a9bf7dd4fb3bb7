"""The request to the program that keeps the repository in the sandbox, and what its report may say."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from syncd.sandbox.repository.agent_repository import (
    FollowReport,
)

HOME = "a" * 40


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


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
