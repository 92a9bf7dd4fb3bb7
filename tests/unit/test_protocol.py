"""The report of a look, of which nothing is trusted."""

from __future__ import annotations

import base64
import json
from math import inf
from typing import Any

import msgspec
import pytest

from syncd.core.clock import Moment
from syncd.model.entry import ABSENT, Entry, Kind
from syncd.model.manifest import Manifest
from syncd.sandbox.executions import PendingRemoval
from syncd.sandbox.look_request import LookItem, LookItems, LookRequest, LookResult, Obstacle
from syncd.sandbox.program import _listed, _text_of
from syncd.sandbox.protocol import MOST_NEW, MOST_PATH_BYTES, Bounds, decoded, items_of, look_result, look_values
from tests.looks import COMMITS, COMPARE, EXISTS, FETCH, PLACE, REMOVE

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
LATER: dict[str, Any] = {"mark": None, "names": {}}
GONE = "==rr==="


def row(kind: str = "f", digest: Any = TEXT, copy: int = -1, unstable: Any = False, *more: Any) -> list[Any]:
    return [kind, 0o644, 4, 1, digest, copy, unstable, *more]


def report(outcomes: Any = GONE, **fields: Any) -> dict[str, Any]:
    """Return a report; outcomes of one letter each may be given as a text."""
    runs = [[letter, 1] for letter in outcomes] if isinstance(outcomes, str) else outcomes
    lists: dict[str, Any] = {"differing": [], "failed": [], "blocked": [], "new": {}, "pruned": []}
    return {"outcomes": runs, **lists, "unlisted": 0, "unsearched": 0, **LATER, **fields}


def differs(*rows: Any) -> dict[str, Any]:
    return report("d" * len(rows) + GONE[len(rows) :], differing=rows)


def blocked(*rows: Any, outcomes: str = "==rr=b=") -> dict[str, Any]:
    return report(outcomes, blocked=rows)


def read(values: Any, request: LookRequest = REQUEST) -> LookResult:
    report = decoded(json.dumps({"look": values, "ended_s": 5}).encode(), Bounds.of_look(request))
    return look_result(report, request)


def test_the_target_of_no_link() -> None:
    """It counts as none."""
    assert read(differs(row("f", TEXT, -1, False, "t"))).differing["fetched"].target == ""
    assert read(differs(row("l", "", -1, False, "t"))).differing["fetched"].target == "t"


def test_a_report_of_what_was_not_asked() -> None:
    """New paths, pruned ones and more of them count only where they were asked for, and more bytes never."""
    request = LookRequest({})
    assert read(report(""), request) == LookResult()
    for fields in ({"new": {"n": row()}}, {"pruned": ["n"]}, {"unlisted": 1}, {"unsearched": 1}):
        with pytest.raises(ValueError, match=r"^it lists what was not asked for$"):
            read(report("", **fields), request)
    with pytest.raises(ValueError, match=r"^more was copied than was asked for$"):
        read(differs(row(copy=0)), LookRequest(ITEMS, most_copied_bytes=3))


def test_a_report_that_is_as_it_may_be() -> None:
    """All that may be copied, a long reason, which is cut, the largest file, and what was not listed or searched."""
    largest = LookRequest(ITEMS, most_copied_bytes=4)
    assert read(differs(row(copy=0)), largest).differing["fetched"].copy == "copies/0"
    (reason,) = read(report("==fr===", failed=["why " * 40])).failed.values()
    assert len(reason) == 120
    largest_bytes = (1 << 63) - 1  # some file systems hold a sparse file of that size
    assert read(report(new={"n": ["f", 0o644, largest_bytes, 1, "", -1, False]})).new["n"].size_bytes == largest_bytes
    found = read(report("==rr=u=", unlisted=2, unsearched=3))
    assert (found.unlisted, found.unseen, list(found.differing)) == (2, 4, ["d/placed"])


def test_what_is_blocked() -> None:
    """A path that was asked for, or a directory above it, each once, and a repository only where one was asked for."""
    found = read(blocked([1, "l"], [0, "g"], outcomes="==rr=bb")).blocked
    assert found == {"d": Obstacle.SYMLINK, ".git": Obstacle.COMMITS}
    deep = LookRequest({"d/e/placed": LookItem((FILE,), PLACE)})
    assert read(blocked([1, "l"], outcomes="b"), deep).blocked == {"d/e": Obstacle.SYMLINK}
    two = LookRequest({"d/a": LookItem((FILE,), PLACE), "d/b": LookItem((FILE,), PLACE)})
    with pytest.raises(ValueError, match=r"^a path is not blocked in such a way$"):
        read(blocked([1, "f"], [1, "f"], outcomes="bb"), two)


def test_what_is_asked() -> None:
    """A letter an action, and the versions."""
    items = {
        "a": LookItem((ABSENT, FILE, FILE), FETCH),
        "b": LookItem((FILE,), COMPARE),
        "c": LookItem((), EXISTS),
    }
    values = look_values(LookRequest(items), 5.0, 9.0)
    file = f"\0f{FILE.size_bytes}"
    assert values["items"] == f"{FETCH.value}a\0n{file}{file}\0\0{COMPARE.value}b{file}\0\0{EXISTS.value}c"


def test_the_longest_report_of_a_look() -> None:
    """It has room for each path that was asked about, and for as many new ones as are listed."""
    nothing = Bounds.of_look(LookRequest({}, most_copied_bytes=7))
    assert nothing.most_copied_bytes == 7
    two = Bounds.of_look(LookRequest(dict.fromkeys("ab", LookItem((), EXISTS))))
    new = Bounds.of_look(LookRequest({}, find_new=True))
    assert two.most_bytes - nothing.most_bytes == 1024
    assert new.most_bytes - nothing.most_bytes == MOST_NEW * 256 + MOST_PATH_BYTES


def test_versions_are_asked_about() -> None:
    """Files have a size and a digest, links a target; of a file without a digest any content differs."""
    link = Entry(Kind.SYMLINK, 0o777, 1, target="t/\udcff")
    program = Entry(Kind.FILE, 0o755, 1, 12, digest=DIGEST[::-1][:16])
    folder, unknown = Entry(Kind.DIRECTORY, 0o755), Entry(Kind.FILE, 0o644, 1, 7)
    versions = [("f", "d", [folder]), ("c", "\udcff", [FILE, program, link]), ("r", "u", [unknown]), ("e", "n", [])]
    assert items_of(versions) == {
        "items": "fd\0d\0\0c\udcff\0f4\0x12\0lt/\udcff\0\0ru\0u\0\0en",
        "digests": base64.b64encode(DIGEST[:16] + DIGEST[::-1][:16]).decode(),
    }
    assert [item[0] + item[1].decode() for item in _listed(items_of(versions[::3]))] == ["fd", "en"]
    assert [*_listed(items_of([]))] == []


def test_a_name_that_cannot_be() -> None:
    """What is no letter of ASCII comes by its bytes, and half of a surrogate pair is no text."""
    name = '%"\\é\udce9\n'
    text = _text_of(name.encode("utf-8", "surrogateescape"))
    assert text == "%25%22%5C%C3%A9%E9%0A"
    assert name in read(report(new={text: row()})).new
    with pytest.raises(ValueError, match=r"^a path leads outside$"):
        read(report(new={"../a": row()}))
    with pytest.raises(ValueError, match=r"^a name has characters that no name has$"):
        read(report(new={"a%00": row()}))
    with pytest.raises(ValueError, match=r"JSON is malformed|truncated"):
        read(report(new={"\ud83d": row()}))


def test_what_was_not_entered() -> None:
    """The workspace itself, a repository or a folder by its name; never anything outside."""
    paths = (".", ".git", "d/.GIT", "d/.git", "node_modules")
    assert read(report(pruned=paths)).pruned == paths


def test_items_of_a_whole_manifest() -> None:
    """Each path of it has one, made when it is asked for, beside those that are listed and those that come last."""
    listed, last, made = (LookItem((), action) for action in (REMOVE, COMMITS, EXISTS))
    named = dict.fromkeys(("a", "new", "newer"), listed)
    items = LookItems(named, Manifest({"a": FILE, "b": FILE}), lambda *_: made, {".git": last})
    assert [*items] == ["a", "new", "newer", "b", ".git"]
    assert (len(items), [path in items for path in ("a", "new", "b", ".git", "c")]) == (5, [True] * 4 + [False])
    assert [items[path] for path in items] == [listed, listed, listed, made, last]
    request = LookRequest(items)
    assert [*items.each()] == [*request.each()] == [*items.items()]
    assert (request.with_action(REMOVE), request.with_action(EXISTS)) == (["a", "new", "newer"], [])


@pytest.mark.parametrize(
    ("wanted", "may"),
    [
        (["a"], True),
        (["d/e"], True),
        (["d/e/below"], True),
        (["d"], False),
        (["other", "a2", "d/e2"], False),
        ([], False),
    ],
)
def test_what_a_late_removal_may_remove(wanted: list[str], may: bool) -> None:
    """It may remove its own paths, with all below, and nothing else."""
    assert PendingRemoval("name", frozenset({"a", "d/e"}), 0.0, 0.0).may_remove(wanted) is may


TWICE = {"m": row(copy=0), "n": row(copy=0)}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, "it does not tell of what was asked"),
        (report("=="), "it has another number of outcomes"),
        (report("r=rr==="), "it says what was not asked for"),
        (report("==="), "it has another number of outcomes"),
        (report("======="), "a removal has no outcome"),
        (report(new={"fetched": row()}), "a new path is none"),
        (report(new={"n": row("", "")}), "a new path is none"),
        (differs(row(), row(copy=0)), "a copy was not asked for"),
        (report(new=TWICE), "one copy is of two files"),
        (differs(row(digest=base64.b64encode(b"short").decode())), "a digest is invalid"),
        (differs(row("d", "", 0)), "a copy is of no file"),
        (differs(row(copy=0, unstable=True)), "a copy is of no file"),
    ],
)
def test_a_report_that_no_program_makes(values: Any, reason: str) -> None:
    """It is refused whole."""
    with pytest.raises(ValueError, match=rf"^{reason}$"):
        read(values)


def test_a_report_of_too_many_texts() -> None:
    """It is refused before they are read."""
    with pytest.raises(ValueError, match=r"^it says more than was asked for$"):
        decoded(b'"' * 1_000, Bounds(16))
    with pytest.raises(ValueError, match=r"^it says more than was asked for$"):
        decoded(b'"', Bounds(31))
    with pytest.raises(msgspec.DecodeError):
        decoded(b'"', Bounds(32))


def test_what_a_request_asks() -> None:
    """Some paths, or what is new; of a result that nobody asked for, no age is known."""
    asks = [LookRequest({}), LookRequest({}, find_new=True), LookRequest({"a": LookItem((), EXISTS)})]
    assert [request.asks_something for request in asks] == [False, True, True]
    asked = LookResult(asked=Moment(10.0, 20.0, 30.0), takes_s=2.0)
    assert [result.age_s(Moment(15.0, 25.0, 35.0)) for result in (LookResult(), asked)] == [-inf, 3.0]
