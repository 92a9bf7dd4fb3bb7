"""The request to the program that keeps the repository in the sandbox, and what its report may say."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import Any

import msgspec
import pytest

from syncd.model.entry import Entry, Kind, as_sent
from syncd.model.manifest import Manifest
from syncd.sandbox.repository.agent_repository import (
    FollowReport,
    RepositoryState,
    branch_there,
    versions_of,
)

HOME = "a" * 40
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
LINK = Entry(Kind.SYMLINK, 0o777, 1, target="caf\udce9")


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def a_file(content: bytes = b"x", mode: int = 0o644, mtime_s: int = 1) -> Entry:
    return Entry(Kind.FILE, mode, mtime_s, len(content), digest=digest(content))


UNKNOWN = Entry(Kind.FILE, 0o644, 1, 4)


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ({}, {"d": FOLDER, "d/a": a_file(), "l": LINK}, {"d/a": a_file(), "l": LINK}),
        ({"a": a_file()}, {"a": a_file(mtime_s=9)}, {}),
        ({"a": a_file()}, {"a": a_file(mode=0o600)}, {}),
        ({"a": a_file()}, {"a": a_file(mode=0o755)}, {"a": a_file(mode=0o755)}),
        ({"a": a_file()}, {"a": a_file(b"y")}, {"a": a_file(b"y")}),
        ({"a": a_file()}, {}, {"a": None}),
        ({"d": FOLDER}, {}, {}),
        ({}, {"d": FOLDER}, {}),
        ({"a": a_file()}, {"a": FOLDER, "a/b": a_file()}, {"a": None, "a/b": a_file()}),
        ({"a": FOLDER, "a/b": a_file()}, {"a": a_file()}, {"a": a_file(), "a/b": None}),
        ({"a": a_file()}, {"a": LINK}, {"a": LINK}),
        ({"a": a_file(b"y")}, {"a": as_sent(a_file(), 1, digest(b"y"))}, {}),
        ({"a": a_file()}, {"a": UNKNOWN}, {"a": UNKNOWN}),
        ({"a": UNKNOWN}, {"a": a_file()}, {"a": a_file()}),
    ],
)
def test_what_git_sees_as_other(
    before: dict[str, Entry], now: dict[str, Entry], changed: dict[str, Entry | None]
) -> None:
    """Contents, kinds and the executable bit count; times, other bits and directories do not."""
    assert versions_of(Manifest(before), Manifest(now)) == changed


@pytest.mark.parametrize("state", RepositoryState)
def test_a_report(state: RepositoryState) -> None:
    """It has a state, and a commit where the repository follows."""
    home = HOME if state is RepositoryState.DONE else ""
    assert msgspec.convert({"state": state.value, "home": home}, FollowReport) == FollowReport(state, home=home)


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


BRANCHES = [
    *(
        "main",
        "feature/x",
        "a.b",
        "x-",
        "café",
        "homes",
        "home.x",
        "HEAD",
        "-d",
        "a b",
        "a..b",
        "a~1",
        "a^",
        "a:b",
    ),
    *(
        "a?",
        "a*",
        "a[",
        "a\\b",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "a.",
        "a/",
        "/a",
        "a//b",
        "a@{b",
        "a@",
        "a\x7f",
        "a\nb",
    ),
    *("../../x", "a/../b", "@/a", "{a}", "a.lockx", ""),
]


@pytest.mark.parametrize("name", BRANCHES)
def test_the_branch_there(name: str) -> None:
    """It is that of here exactly where git takes it."""
    asked = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True, check=False)
    is_taken = asked.returncode == 0 and os.fsdecode(asked.stdout) == name + "\n"
    assert branch_there(name) == (name if is_taken else "main")


@pytest.mark.parametrize("name", ["home/x", "home/a/b"])
def test_a_branch_below_home(name: str) -> None:
    """It cannot be there, beside the branch `home`."""
    assert branch_there(name) == "main"
