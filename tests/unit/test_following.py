"""When the next look at an agent's work is due, what it asks for, and what is known after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import pytest
from msgspec.structs import replace

from syncd.core.choices import SAVED_BYTES
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult
from syncd.sandbox.sandbox_content import UNKNOWN, SandboxContent
from syncd.sync.agent_work import FoundWork, lacking, pruned_names
from syncd.sync.following import (
    DOWNLOADS_SHARE,
    SILENCE_S,
    Pace,
    Since,
    follow_request,
    followed,
    request_since,
    since_look,
    with_gone,
)


def _paced(*looks: tuple[float, float, bool], follow_s: float = 10.0, requests: int = 4, **facts: Any) -> Pace:
    """Looks that began and ended then, and whether they found a change."""
    pace = Pace(follow_s)
    for name, value in facts.items():
        setattr(pace, name, value)
    pace.asked(0.0)
    for began_s, ended_s, has_changed in looks:
        pace.looked(began_s, ended_s, requests)
        if has_changed:
            pace.found_change(ended_s)
    return pace


@pytest.mark.parametrize(
    ("pace", "now_s", "due_s"),
    [
        (_paced(), 0.0, -inf),  # at once
        (_paced((0.0, 1.0, True)), 1.0, 9.0),  # at home ten seconds after it was written, with a look of one second
        (_paced((0.0, 8.0, True)), 8.0, 16.0),  # a look takes no more than half of the time
        (_paced((300.0, 301.0, False)), 301.0, 330.1),  # a tenth of the quiet time …
        (_paced((2000.0, 2001.0, False)), 2001.0, 2060.0),  # … up to a minute
        (_paced((3599.0, 3600.0, False)), 3600.0, inf),  # an hour of silence
        (_paced((300.0, 301.0, False), follow_s=600.0), 301.0, 899.0),
        (_paced((0.0, 1.0, True), (100.0, 101.0, True)), 101.0, 109.0),
        (_paced((0.0, 0.0, True), follow_s=0.5), 0.0, 0.5),
        # Where no program runs, each look downloads all: it takes a twentieth of the time at most.
        (_paced((0.0, 8.0, True), share=DOWNLOADS_SHARE), 8.0, 160.0),
        # One that failed is made again within a minute, however rarely it was asked for, and however long it took.
        (_paced((0.0, 40.0, False), follow_s=600.0, has_failed=True), 40.0, 60.0),
    ],
)
def test_when_it_is_due(pace: Pace, now_s: float, due_s: float) -> None:
    """As often as was asked for, more rarely in silence."""
    assert pace.due_s(now_s, is_paced=False) == pytest.approx(due_s)


def test_a_refused_account_is_looked_at_more_rarely() -> None:
    """After a 429 each request of a look costs five seconds of waiting."""
    assert _paced((0.0, 1.0, True), requests=6).due_s(1.0, is_paced=True) == 30.0


def test_quiet_is_told_after_a_burst() -> None:
    """A minute after the last change that a look found; a command is none."""
    pace = _paced((0.0, 1.0, True), (5.0, 6.0, True), (30.0, 31.0, False))
    assert [pace.is_newly_quiet(now_s) for now_s in (31.0, 65.9, 66.0)] == [False, False, True]
    pace.untold_s = inf  # it was told
    pace.asked(70.0)
    assert not pace.is_newly_quiet(200.0)
    pace.found_change(301.0)
    assert pace.is_newly_quiet(361.0)


def test_what_ends_a_silence() -> None:
    """A sync has it look again at the pace of before, a command at once."""
    pace = _paced((3599.0, 3600.0, False))
    pace.active_s = 7200.0
    assert pace.due_s(7200.0, is_paced=False) == 3659.0
    assert pace.due_s(7200.0 + SILENCE_S, is_paced=False) == inf
    pace.asked(20_000.0)
    assert pace.due_s(20_000.0, is_paced=False) == -inf


SENT = Entry(Kind.FILE, 0o644, 1, 3, digest=b"ours")
NEWER = Entry(Kind.FILE, 0o644, 2, 4, digest=b"ours, newer")
THEIRS = SeenEntry(Kind.FILE, 0o644, size_bytes=5, digest=b"theirs", copy="theirs")
THEIRS_NEWER = SeenEntry(Kind.FILE, 0o644, size_bytes=6, digest=b"theirs, newer", copy="newer")
AS_SENT = SeenEntry(Kind.FILE, 0o644, size_bytes=3, digest=b"ours")
UNSTABLE = SeenEntry(Kind.FILE, 0o644, size_bytes=9, unstable=True)
HELD = SandboxContent(Manifest({"a": SENT, "b": SENT}))
KNOWN = FoundWork(0.0, {"a": THEIRS, "new": THEIRS})


def _after(
    differing: dict[str, SeenEntry],
    new: dict[str, SeenEntry],
    content: SandboxContent = HELD,
    known: FoundWork = KNOWN,
    overwritten: Sequence[Callable[[str], bool]] = (),
) -> tuple[FoundWork, bool]:
    result = LookResult(differing=differing, new=new, pruned=["p"], unlisted=3, not_kept="why")
    return followed(known, result, content, overwritten, _leaves_out, at_s=7.0)


def _leaves_out(path: str, is_directory: bool) -> bool:
    return (path, is_directory) in (("x.log", False), ("d", True))


@pytest.mark.parametrize(
    ("differing", "new", "there"),
    [
        ({}, {}, {"a": THEIRS, "new": THEIRS}),
        ({"a": THEIRS_NEWER, "new": ABSENT}, {}, {"a": THEIRS_NEWER}),
        ({"a": AS_SENT, "b": ABSENT}, {}, {"new": THEIRS, "b": ABSENT}),
        ({"a": UNSTABLE, "b": UNSTABLE}, {}, {"a": THEIRS, "new": THEIRS, "b": UNSTABLE}),  # what was whole stays
    ],
)
def test_what_is_known_after_a_look(
    differing: dict[str, SeenEntry], new: dict[str, SeenEntry], there: dict[str, SeenEntry]
) -> None:
    """The newest whole version of each path; what was put there, or taken home, is none of the agent's."""
    found = _after(differing, new)
    assert found == (FoundWork(7.0, there, ("p",), 3, "why"), there != KNOWN.there)


@pytest.mark.parametrize(
    ("was", "now", "has_changed"),
    [
        (THEIRS, replace(THEIRS, mtime_s=9, mode=0o600), False),
        (SeenEntry(Kind.OTHER, 1), SeenEntry(Kind.OTHER, 2), False),
        (SeenEntry(Kind.OTHER), ABSENT, True),
        (THEIRS, THEIRS_NEWER, True),
    ],
)
def test_what_counts_as_a_change(was: SeenEntry, now: SeenEntry, has_changed: bool) -> None:
    """Another version; a time is none, nor what nobody can tell from what was there."""
    assert _after({"a": now}, {}, known=FoundWork(0.0, {"a": was}))[1] is has_changed


def test_nothing_excluded_is_kept() -> None:
    """It is known to be there, without a content; what was put there before the rule is kept, as it is saved."""
    content = SandboxContent(Manifest({"x.log": SENT}))
    kept = [_after({}, {"x.log": THEIRS}, each)[0].there["x.log"].copy for each in (HELD, content)]
    assert kept == ["", THEIRS.copy]


def test_what_is_on_its_way_is_not_the_agents() -> None:
    """It may have been seen half written; what was known of such a path stays known."""
    on_its_way = SandboxContent(HELD.base, ({"a": NEWER, "b": NEWER, "n": NEWER},), True)
    found = _after({"b": THEIRS, "a": THEIRS_NEWER}, {"n": THEIRS, "m": THEIRS}, on_its_way)
    assert found[0].there == {**KNOWN.there, "m": THEIRS}


def test_what_arrived_meanwhile_has_gone_over_the_agents() -> None:
    """Neither what was known is there any more, nor what the look has seen before that; nobody there changed it."""
    over = [lambda path: path == "a", lambda path: path == "b"]
    assert _after({"a": THEIRS_NEWER, "b": THEIRS}, {}, overwritten=over) == (
        FoundWork(7.0, {"new": THEIRS}, ("p",), 3, "why"),
        False,
    )


def test_what_was_taken_home_is_not_known_any_more() -> None:
    """It counts as put there; an undo has it be the agent's again."""
    taken = replace(SENT, size_bytes=THEIRS.size_bytes, digest=THEIRS.digest)
    assert _after({}, {}, SandboxContent(Manifest({"a": taken}))) == (
        FoundWork(7.0, {"new": THEIRS}, ("p",), 3, "why"),
        False,
    )


def test_what_a_look_asks_for() -> None:
    """What is otherwise than was known, or sent; the content of what is excluded is not fetched, one that lacks is."""
    directory = SeenEntry(Kind.DIRECTORY, 0o755)
    known = FoundWork(
        0.0, {"a": THEIRS, "x.log": THEIRS, "b": ABSENT, "d": directory, "u": THEIRS, "c": replace(THEIRS, copy="")}
    )
    content = SandboxContent(Manifest({"a": SENT, "c": SENT}), ({"u": NEWER, "w": NEWER},), True, {"l": SENT})
    request = follow_request(content, known, _leaves_out)
    items = dict(request.each())
    assert {path: (item.versions, item.action) for path, item in items.items()} == {
        "a": ((THEIRS,), LookAction.FETCH),
        "b": ((), LookAction.FETCH),
        "c": ((SENT,), LookAction.FETCH),
        "d": ((directory,), LookAction.COMPARE),
        "l": ((SENT,), LookAction.FETCH),
        "u": ((THEIRS, NEWER), LookAction.FETCH),
        "w": ((NEWER,), LookAction.FETCH),
        "x.log": ((THEIRS,), LookAction.COMPARE),
    }
    assert items["c"] == LookItem((SENT,), LookAction.FETCH)
    assert (request.find_new, request.pruned_names) == (True, pruned_names(_leaves_out))
    assert request.most_copied_bytes == SAVED_BYTES - 3 * THEIRS.size_bytes
    full = FoundWork(0.0, {"a": replace(THEIRS, size_bytes=SAVED_BYTES + 1)})
    assert follow_request(UNKNOWN, full, _leaves_out).most_copied_bytes == 0


MARK = ("a" * 64, 5)
MARKED = Manifest({"d": Entry(Kind.DIRECTORY), "d/a": SENT, "d/b": SENT, "c": SENT})
LOG = SeenEntry(Kind.FILE)
BEFORE = {"d/new": SeenEntry(Kind.FILE, copy="kept"), "d/b": ABSENT, "x.log": LOG}


def _told(new: dict[str, SeenEntry] | None = None, **fields: Any) -> LookResult | None:
    result = LookResult(new=new or {}, mark=fields.pop("mark", MARK), **fields)
    return with_gone(result, BEFORE, SandboxContent(MARKED))


def test_what_is_gone_since() -> None:
    """What was known to be in a folder that has changed, and is not named any more; the rest is as it was told."""
    there = {"d/more": SeenEntry(Kind.FILE, digest=b"x")}
    told = _told(there, names={"d": {"a", "more"}, ".": {"d", "x.log"}})
    assert (told.differing, told.new) == ({"d/new": ABSENT, "c": ABSENT}, there)
    assert _told() == LookResult(mark=MARK)
    assert _told(names={"d": {"a", "new", "pruned"}}, pruned=("d/pruned",)) is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"mark": None},
        {"names": {"d": {"a", "new", "strange"}}},
        {"names": {"d": {"a", "new", "b"}}},
        {"new": {"d/a": SeenEntry(Kind.FILE)}},
    ],
    ids=["other folders, or cut short", "came with an old time", "came back with an old time", "unread"],
)
def test_what_only_a_look_at_everything_tells(fields: dict[str, Any]) -> None:
    """Then what times tell is not believed."""
    assert _told(**fields) is None


def test_a_look_since_another_one() -> None:
    """It names what arrived since, and what the rules leave out, of which a change is not fetched."""
    arrived = MARKED | {"c": NEWER, "n": SENT}
    del arrived["d/a"]
    content = SandboxContent(arrived)
    since = Since(MARK, MARKED, pruned_names(_leaves_out), BEFORE, 0.0)
    whole = follow_request(content, FoundWork(1.0, BEFORE), _leaves_out)
    request = request_since(whole, content, BEFORE, since)
    assert {path: (item.action, item.versions) for path, item in request.items.items()} == {
        "c": (LookAction.FETCH, (NEWER,)),
        "n": (LookAction.FETCH, (SENT,)),
        "d/a": (LookAction.FETCH, ()),
        "x.log": (LookAction.COMPARE, (LOG,)),
    }
    assert (request.since, request.find_new) == (MARK, True)
    assert request_since(whole, SandboxContent(MARKED, (arrived,), True), BEFORE, since) is None
    assert request_since(whole, content, BEFORE, replace(since, pruned_names=["other"])) is None
    assert request_since(whole, content, {"d/b": ABSENT}, since) is None  # a content of what was known is gone


@pytest.mark.parametrize(
    ("result", "base"),
    [
        (LookResult(), MARKED),
        (LookResult(mark=MARK, unseen=1), MARKED),
        (LookResult(mark=MARK, not_kept="no room"), MARKED),
        (LookResult(mark=MARK, differing={"a": UNSTABLE}), MARKED),
        (LookResult(mark=MARK), MARKED | {".git": Entry(Kind.DIRECTORY)}),
    ],
)
def test_a_look_that_leaves_something_open(result: LookResult, base: Manifest) -> None:
    """The next one compares everything."""
    request = LookRequest({}, find_new=True)
    assert since_look(request, result, base, {}, 5.0) is None
    assert since_look(request, LookResult(mark=MARK), MARKED, BEFORE, 5.0) == Since(MARK, MARKED, (), BEFORE, 5.0)


def test_what_lacks_its_content() -> None:
    """Of what the rules exclude none is wanted, but of what was put there before the rule."""
    there = {"large": LOG, "x.log": LOG, "d/b": ABSENT, "a": THEIRS}
    assert lacking(there, HELD, _leaves_out) == {"large": LOG}
    assert lacking(there, SandboxContent(Manifest({"x.log": SENT})), _leaves_out).keys() == {"large", "x.log"}
