"""The report of the agent's commits, of which nothing is trusted."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import pytest

from syncd.sandbox.look_encoding import InvalidReport
from syncd.sandbox.repository import commits_report
from syncd.sandbox.repository.commits_report import (
    CommitsReport,
    commits_of,
)

ID, OTHER_ID = "1" * 40, "a" * 64
DIGEST = bytes(range(32))
TEXT = base64.b64encode(DIGEST).decode()


def commit(name: str = ID, *, seconds: Any = 5, zone: Any = "+0000", message: str = "bQ==", more: int = 0) -> list[Any]:
    return [name, "Ada", "a@x", seconds, zone, message, more]


def change(
    index: int = 0, path: Any = "a", kind: str = "f", digest: str = TEXT, copy: int = -1, *more: Any
) -> list[Any]:
    return [index, path, kind, 0o644, 4, digest, copy, *more]


def done(commits: int = 0, changes: int = 0, branches: int = 0, *more: Any) -> list[Any]:
    return ["done", [commits, changes, branches, 0, 0, 0], ["refs/heads/w", [], "", ""], *more]


def read(rows: list[list[Any]]) -> CommitsReport:
    return commits_of(json.loads(json.dumps(rows)), lambda name: os.fsdecode(name.encode("utf-8", "surrogateescape")))


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../out", "d/../../out", "./n", ".", "..", "d//n", "d/"], ids=repr)
def test_a_path_that_leads_outside(path: str) -> None:
    """An agent can write such a tree: the path is told, and the commit stays."""
    found = read([["commits", [commit()]], ["changes", [change(path=path), change()]], done(1, 2)]).found
    assert (list(found.commits[0].changes), found.commits[0].refused) == (["a"], (path,))


ONE = ["commits", [commit()]]
HOSTILE: dict[str, list[list[Any]]] = {
    "nothing": [],
    "no end": [ONE],
    "goes on": [done(), ONE],
    "two ends": [done(), done()],
    "counts": [ONE, done(2)],
    "few counts": [["done", [0, 0, 0], ["", [], "", ""]]],
    "negative count": [["done", [0, 0, 0, -1, 0, 0], ["", [], "", ""]]],
    "no state": [["done", [0, 0, 0, 0, 0, 0]]],
    "short state": [["done", [0, 0, 0, 0, 0, 0], ["", []]]],
    "much under way": [["done", [0, 0, 0, 0, 0, 0], ["", ["x"] * 11, "", ""]]],
    "unknown label": [["other", []], done()],
    "no list": [["commits", 5], done()],
    "no row": [["commits", [5]], done(1)],
    "id": [["commits", [commit("1" * 39)]], done(1)],
    "id with a newline": [["commits", [commit(ID + "\n")]], done(1)],
    "id that is an option": [["commits", [commit("--output=x" + "1" * 30)]], done(1)],
    "vast seconds": [["commits", [commit(seconds=1 << 70)]], done(1)],
    "seconds as text": [["commits", [commit(seconds="5")]], done(1)],
    "zone": [["commits", [commit(zone="+00000")]], done(1)],
    "message": [["commits", [commit(message="!")]], done(1)],
    "long message": [["commits", [commit(message="A" * (1 << 18))]], done(1)],
    "lone surrogate": [["commits", [[ID, "\ud800", "", 0, "", "", 0]]], done(1)],
    "NUL in an author": [["commits", [[ID, "\0", "", 0, "", "", 0]]], done(1)],
    "change of no commit": [ONE, ["changes", [change(1)]], done(1, 1)],
    "negative commit": [ONE, ["changes", [change(-1)]], done(1, 1)],
    "path of a number": [ONE, ["changes", [change(path=7)]], done(1, 1)],
    "path with NUL": [ONE, ["changes", [change(path="a\0b")]], done(1, 1)],
    "long path": [ONE, ["changes", [change(path="n" * 70000)]], done(1, 1)],
    "folder": [ONE, ["changes", [change(kind="d")]], done(1, 1)],
    "unknown kind": [ONE, ["changes", [change(kind="x")]], done(1, 1)],
    "copy of a link": [ONE, ["changes", [change(0, "a", "l", "", 0, "t")]], done(1, 1)],
    "copy without digest": [ONE, ["changes", [change(digest="", copy=0)]], done(1, 1)],
    "one copy of two contents": [
        ONE,
        ["changes", [change(copy=0), [0, "b", "f", 0o644, 5, TEXT, 0]]],
        done(1, 2),
    ],
    "copy of a large number": [ONE, ["changes", [change(copy=1)]], done(1, 1)],
    "digest": [ONE, ["changes", [change(digest=TEXT[:24])]], done(1, 1)],
    "mode": [ONE, ["changes", [[0, "a", "f", 0o4755, 1, TEXT, -1]]], done(1, 1)],
    "negative size": [ONE, ["changes", [[0, "a", "f", 0o644, -1, TEXT, -1]]], done(1, 1)],
    "target with NUL": [ONE, ["changes", [change(0, "a", "l", "", -1, "a\0b")]], done(1, 1)],
    "long row": [ONE, ["changes", [change(0, "a", "l", "", -1, "t", "more")]], done(1, 1)],
    "branch of a number": [["branches", [[5, 5]]], done(0, 0, 1)],
}


@pytest.mark.parametrize("rows", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_report_is_none(rows: list[list[Any]]) -> None:
    """One invalid value makes the whole report worthless."""
    with pytest.raises(InvalidReport):
        read(rows)


def test_a_report_of_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than was asked for is none."""
    rows = [["commits", [commit(), commit()]], ["changes", [change(), change(1)]], done(2, 2)]
    assert len(read(rows).found.commits) == 2
    for name in ("MOST_COMMITS", "MOST_PATHS"):
        with monkeypatch.context() as patched:
            patched.setattr(commits_report, name, 1)
            with pytest.raises(InvalidReport, match="too much"):
                read(rows)
