"""The list of a look, and its report, of which nothing is trusted."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest

from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same
from syncd.sandbox import look_encoding
from syncd.sandbox.look_encoding import MOST_BLOCKED, InvalidReport, LookReport, report_of
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, Obstacle

COMPARE, FETCH, REMOVE, EXISTS = LookAction.COMPARE, LookAction.FETCH, LookAction.REMOVE, LookAction.EXISTS
PLACE, COMMITS = LookAction.PLACE, LookAction.COMMITS
DIGEST = bytes(range(32))
TEXT = base64.b64encode(DIGEST).decode()
FILE = Entry(Kind.FILE, 0o644, 1, 4, digest=DIGEST)
ITEMS = {
    "fetched": LookItem((FILE,), FETCH),
    "compared": LookItem((FILE,), COMPARE),
    "a": LookItem((FILE,), REMOVE),
    "b": LookItem((FILE,), REMOVE),
    "there": LookItem((), EXISTS),
    "d/placed": LookItem((FILE,), PLACE),
    ".git": LookItem((), COMMITS),
}
REQUEST = LookRequest(ITEMS, find_new=True)
REMOVED = ["removed", [[2, 3]]]


def done(*counts: int) -> list[Any]:
    return ["done", [*counts, *[0] * (11 - len(counts))]]


def blocked(*rows: list[Any], count: int = 1) -> list[list[Any]]:
    return [REMOVED, ["blocked", list(rows)], done(0, 0, 0, 2, 0, 0, count)]


def row(
    key: int | str, kind: str = "f", digest: str = TEXT, copy: int = -1, unstable: int = 0, *more: Any
) -> list[Any]:
    return [key, kind, 0o644, 4, 1, digest, copy, unstable, *more]


def read(rows: Iterable[list[Any]], request: LookRequest = REQUEST) -> LookReport:
    return report_of(json.loads(json.dumps(list(rows))), request, str)


HOSTILE: dict[str, list[list[Any]]] = {
    "nothing": [],
    "no end": [REMOVED],
    "goes on": [REMOVED, done(0, 0, 0, 2), REMOVED],
    "two ends": [REMOVED, done(0, 0, 0, 2), done(0, 0, 0, 2)],
    "counts": [REMOVED, done(0, 0, 0, 1)],
    "few counts": [REMOVED, ["done", [0, 0, 0, 2]]],
    "counts of another type": [REMOVED, ["done", ["0"] * 11]],
    "removal without outcome": [["removed", [[2, 2]]], done(0, 0, 0, 1)],
    "removed twice": [["removed", [[2, 3], [3, 3]]], done(0, 0, 0, 3)],
    "removed and differs": [REMOVED, ["differing", [row(2)]], done(1, 0, 0, 2)],
    "removed and kept": [REMOVED, ["kept", [[2, 2]]], done(0, 0, 0, 2, 1)],
    "removed what was compared": [["removed", [[1, 3]]], done(0, 0, 0, 3)],
    "range without end": [["removed", [[2, 1 << 39]]], done(0, 0, 0, 1 << 39)],
    "range backwards": [["removed", [[3, 2]]], done()],
    "negative range": [["removed", [[-1, 3]]], done(0, 0, 0, 5)],
    "range of three": [["removed", [[2, 3, 4]]], done(0, 0, 0, 2)],
    "failed without reason": [["removed", [[2, 2]]], ["failed", [[3]]], done(0, 0, 0, 1, 0, 1)],
    "failed with a number": [["removed", [[2, 2]]], ["failed", [[3, 3]]], done(0, 0, 0, 1, 0, 1)],
    "index out of range": [REMOVED, ["differing", [row(7)]], done(1, 0, 0, 2)],
    "negative index": [REMOVED, ["differing", [row(-7)]], done(1, 0, 0, 2)],
    "index as a bool": [REMOVED, ["differing", [row(True)]], done(1, 0, 0, 2)],
    "index as a text": [REMOVED, ["differing", [row("0")]], done(1, 0, 0, 2)],
    "twice": [REMOVED, ["differing", [row(0), row(0)]], done(2, 0, 0, 2)],
    "differs where only existence counts": [REMOVED, ["differing", [row(4)]], done(1, 0, 0, 2)],
    "copy of what was compared": [REMOVED, ["differing", [row(1, copy=0)]], done(1, 0, 0, 2)],
    "copy of a folder": [REMOVED, ["differing", [row(0, "d", copy=0)]], done(1, 0, 0, 2)],
    "copy without digest": [REMOVED, ["differing", [row(0, digest="", copy=0)]], done(1, 0, 0, 2)],
    "unstable copy": [REMOVED, ["differing", [row(0, copy=0, unstable=1)]], done(1, 0, 0, 2)],
    "one copy for two": [REMOVED, ["differing", [row(0, copy=0)]], ["new", [row("n", copy=0)]], done(1, 1, 0, 2)],
    "copy of a large number": [REMOVED, ["differing", [row(0, copy=1)]], done(1, 0, 0, 2)],
    "short digest": [REMOVED, ["differing", [row(0, digest=TEXT[:24])]], done(1, 0, 0, 2)],
    "long digest": [REMOVED, ["differing", [row(0, digest=TEXT * 2)]], done(1, 0, 0, 2)],
    "no base64": [REMOVED, ["differing", [row(0, digest="!" * 44)]], done(1, 0, 0, 2)],
    "no ASCII": [REMOVED, ["differing", [row(0, digest="é" * 44)]], done(1, 0, 0, 2)],
    "unknown kind": [REMOVED, ["differing", [row(0, "x")]], done(1, 0, 0, 2)],
    "negative size": [REMOVED, ["differing", [[0, "f", 0o644, -1, 1, TEXT, -1, 0]]], done(1, 0, 0, 2)],
    "vast size": [REMOVED, ["differing", [[0, "f", 0o644, 1 << 70, 1, TEXT, -1, 0]]], done(1, 0, 0, 2)],
    "mode": [REMOVED, ["differing", [[0, "f", 0o4755, 1, 1, TEXT, -1, 0]]], done(1, 0, 0, 2)],
    "short row": [REMOVED, ["differing", [[0, "f"]]], done(1, 0, 0, 2)],
    "long row": [REMOVED, ["differing", [row(0, "l", "", -1, 0, "t", "more")]], done(1, 0, 0, 2)],
    "target of a number": [REMOVED, ["differing", [row(0, "l", "", -1, 0, 5)]], done(1, 0, 0, 2)],
    "target with NUL": [REMOVED, ["differing", [row(0, "l", "", -1, 0, "a\0b")]], done(1, 0, 0, 2)],
    "no row": [REMOVED, ["differing", [5]], done(1, 0, 0, 2)],
    "no list": [REMOVED, ["differing", 5], done(1, 0, 0, 2)],
    "unknown label": [REMOVED, ["other", []], done(0, 0, 0, 2)],
    "missing more than asked": [REMOVED, done(0, 0, 0, 2, 0, 0, 0, 2)],
    "new and known": [REMOVED, ["new", [row("compared")]], done(0, 1, 0, 2)],
    "new twice": [REMOVED, ["new", [row("n"), row("n")]], done(0, 2, 0, 2)],
    "new and absent": [REMOVED, ["new", [row("n", "", "")]], done(0, 1, 0, 2)],
    "new by number": [REMOVED, ["new", [row(7)]], done(0, 1, 0, 2)],
    **{
        f"new {path[:20]!r}": [REMOVED, ["new", [row(path)]], done(0, 1, 0, 2)]
        for path in (
            *("", "/etc/passwd", "../out", "d/../../out", "./n", ".", "..", "d//n", "d/", "a\0b"),
            *(".git/hooks/x", "d/.GIT", "n" * 70000),
        )
    },
    "blocked and only compared": blocked([1, 0, "f"]),
    "blocked and to remove": [["removed", [[2, 2]]], ["blocked", [[3, 0, "f"]]], done(0, 0, 0, 1, 0, 0, 1)],
    "blocked above the workspace": blocked([5, 2, "f"]),
    "blocked below its place": blocked([5, -1, "f"]),
    "blocked out of range": blocked([7, 0, "f"]),
    "blocked twice": blocked([5, 0, "f"], [5, 1, "f"], count=2),
    "blocked uncounted": blocked([5, 0, "f"], count=0),
    "blocked by the unknown": blocked([5, 0, "x"]),
    "blocked by commits where none were asked for": blocked([5, 0, "g"]),
    "blocked by a path": blocked(["d", 0, "f"]),
    "differs where only the place counts": [REMOVED, ["differing", [row(5)]], done(1, 0, 0, 2)],
    "pruned outside": [REMOVED, ["pruned", ["../node_modules"]], done(0, 0, 1, 2)],
    "pruned number": [REMOVED, ["pruned", [5]], done(0, 0, 1, 2)],
}


@pytest.mark.parametrize("rows", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_report_is_none(rows: list[list[Any]]) -> None:
    """One invalid value makes the whole report worthless."""
    with pytest.raises(InvalidReport):
        read(rows)


def test_a_report_of_what_was_not_asked() -> None:
    """New paths, pruned ones and more of them count only where they were asked for."""
    request = LookRequest({})
    assert read([done()], request) == LookReport()
    for rows in ([["new", [row("n")]], done(0, 1)], [["pruned", ["n"]], done(0, 0, 1)], [done(*[0] * 8, 1)]):
        with pytest.raises(InvalidReport, match="not asked for"):
            read(rows, request)


def test_what_is_blocked() -> None:
    """A path that was asked for, or a directory above it, and a repository only where one was asked for."""
    assert read(blocked([5, 1, "l"], [6, 0, "g"], count=2)).blocked == {"d": Obstacle.SYMLINK, ".git": Obstacle.COMMITS}
    many = [[index, 0, "f"] for index in range(MOST_BLOCKED + 1)]
    request = LookRequest({str(index): LookItem((FILE,), PLACE) for index in range(len(many))})
    counted = ["done", [0, 0, 0, 0, 0, 0, len(many), 0, 0, 0, 0]]
    with pytest.raises(InvalidReport, match="too much"):
        read([["blocked", many], counted], request)


def test_too_many_new_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program lists only so many."""
    monkeypatch.setattr(look_encoding, "MOST_NEW", 3)
    rows = [["new", [row(str(number), "o", "")]] for number in range(4)]
    with pytest.raises(InvalidReport, match="too much"):
        report_of([*rows, done(0, 4)], LookRequest({}, find_new=True), str)


def test_a_name_that_cannot_be() -> None:
    """Half of a surrogate pair is no escaped byte."""

    def strict(name: str) -> str:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")

    assert "\udce9" in report_of([["new", [row("\udce9")]], done(0, 1)], LookRequest({}, find_new=True), strict).new
    with pytest.raises(InvalidReport, match="characters"):
        report_of([["new", [row("\ud83d")]], done(0, 1)], LookRequest({}, find_new=True), strict)


@pytest.mark.parametrize(
    ("entry", "version", "expected"),
    [
        (SeenEntry(Kind.FILE, 0o600, size_bytes=4, digest=DIGEST), FILE, True),
        (SeenEntry(Kind.FILE, 0o700, size_bytes=4, digest=DIGEST), FILE, False),
        (SeenEntry(Kind.FILE, 0o644, size_bytes=4, digest=DIGEST[::-1]), FILE, False),
        (SeenEntry(Kind.FILE, 0o644, size_bytes=4), Entry(Kind.FILE, 0o644, 1, 4), False),
        (SeenEntry(Kind.FILE, 0o644, size_bytes=4, digest=DIGEST), Entry(Kind.FILE, 0, 1, 4, sent_digest=DIGEST), True),
        (SeenEntry(Kind.SYMLINK, target="t"), Entry(Kind.SYMLINK, 0o777, 1, target="t"), True),
        (SeenEntry(Kind.SYMLINK, target="t"), Entry(Kind.SYMLINK, 0o777, 1, target="u"), False),
        (SeenEntry(Kind.DIRECTORY, 0o700), Entry(Kind.DIRECTORY, 0o755, 1), True),
        (SeenEntry(Kind.DIRECTORY), FILE, False),
        (SeenEntry(Kind.OTHER), FILE, False),
        (ABSENT, FILE, False),
        (SeenEntry(Kind.UNREAD), FILE, False),
    ],
)
def test_as_a_version(entry: SeenEntry, version: Entry, *, expected: bool) -> None:
    """Kind, content, target and the owner's executable bit count, other bits and times do not."""
    assert same(entry, version) is expected
