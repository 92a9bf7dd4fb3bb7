"""What may be in a sandbox of ours: after an archive was sent, after one arrived, after a path was brought home."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Difference, Manifest
from syncd.sandbox.sandbox_content import UNKNOWN, SandboxContent, TakenPath, with_taken

OLD, NEW, NEWER = (Entry(Kind.FILE, 0o644, size, 3, digest=bytes([size])) for size in (1, 2, 3))
DIRECTORY = Entry(Kind.DIRECTORY, 0o755)
BASE = Manifest({"a": OLD, "b": OLD})


def test_only_what_differs_may_be_there_beside_the_base() -> None:
    """Archives that are sent again and again add only what is another version in them."""
    sent = Manifest({"a": NEW, "b": OLD})
    nothing, once = UNKNOWN.with_sent(sent), SandboxContent(BASE).with_sent(sent)
    assert (nothing.maybe, once.maybe) == ((sent,), (Manifest({"a": NEW}),))
    assert once.with_sent(sent).maybe is once.maybe
    twice = SandboxContent(BASE, once.maybe).with_sent(Manifest({"a": NEWER, "c": NEW}))
    assert twice.maybe == (Manifest({"a": NEW, "c": NEW}), Manifest({"a": NEWER}))
    # What such an archive has of the base may be unpacked late, too.
    assert (nothing.unanswered, once.unanswered, twice.unanswered) == ((sent,), (BASE, *once.maybe), twice.maybe)


def test_what_was_sent_again_may_be_there_under_another_base() -> None:
    """What was taken since was no part of the archive."""
    sent = SandboxContent(BASE).with_sent(BASE)
    taken = sent.with_base(Manifest({"a": NEW, "n": NEW}))
    assert (sent.unanswered, taken.unanswered) == ((BASE,), (BASE,))
    assert taken.with_base(BASE).unanswered == (BASE,)
    assert SandboxContent(BASE, uncertain=True).with_base(BASE).unanswered == ()


def test_unanswered_versions_are_kept_however_many_archives_there_were() -> None:
    """Each version of a path is kept once, the first one too."""
    content = UNKNOWN
    versions = [replace(OLD, digest=bytes([number])) for number in range(20)]
    for version in versions:
        content = content.with_sent(Manifest({"a": version, "b": OLD}))
    assert (content.versions_of("a"), content.versions_of("b")) == (versions, [OLD])
    assert [len(each) for each in content.maybe] == [2, *[1] * 19]
    assert content.with_sent(Manifest({"a": versions[6], "b": OLD})).maybe is content.maybe
    assert content.with_sent(Manifest({"c": OLD})).maybe[1:] == content.maybe[1:]


def test_what_arrived_is_the_base_and_what_is_gone_here_is_left() -> None:
    """Of what was never answered, it is not known that it arrived; nothing is left of what was removed there."""
    content = SandboxContent(BASE, (Manifest({"m": NEW, "n": NEW}),), uncertain=True, left=Manifest({"l": OLD}))
    now = Manifest({"a": NEW})
    assert content.after_arrival(now, (), ()) == SandboxContent(
        now, (Manifest({"m": NEW, "n": NEW}),), left=Manifest({"b": OLD, "l": OLD})
    )
    assert content.after_arrival(now, ("b", "m", "n", "l"), ()) == SandboxContent(now)
    assert content.after_arrival(now, ("b", "m", "n"), ("a",)).left == {"a": OLD, "l": OLD}


@pytest.mark.parametrize(
    ("content", "leftovers", "arrived", "base_of"),
    [
        (UNKNOWN, "", "", {"a": None}),
        (SandboxContent(BASE, (Manifest({"a": NEW}),), uncertain=True), "", "a b", {"a": OLD, "b": OLD, "x": None}),
        (SandboxContent(BASE, left=Manifest({"l": OLD})), "l", "a b l", {"l": OLD}),
        # What was sent, never answered and is gone here may be there, in which version nobody knows.
        (
            SandboxContent(BASE, (Manifest({"l": NEW, "u": NEW}),), left=Manifest({"l": OLD})),
            "l u",
            "a b l",
            {"l": None},
        ),
    ],
)
def test_what_is_left_over_and_what_arrived(
    content: SandboxContent, leftovers: str, arrived: str, base_of: dict[str, Entry | None]
) -> None:
    """A leftover is ours; what may be half unpacked is none before its archive was answered."""
    assert content.leftovers == {*leftovers.split()}
    assert {path for path in "ablux" if content.has_arrived(path)} == {*arrived.split()}
    assert {path: content.base_of(path) for path in base_of} == base_of


def test_each_version_that_may_be_there() -> None:
    """The certain one first. A leftover that arrived is no version of what is sent now."""
    content = SandboxContent(BASE, (Manifest({"a": NEW, "u": NEW}),), uncertain=True, left=Manifest({"l": OLD}))
    assert [content.versions_of(path) for path in ("a", "l", "u", "x")] == [[OLD, NEW], [OLD], [NEW], []]
    assert [path for path in "abluvx" if content.may_hold(path)] == ["a", "b", "u"]
    assert (content.unanswered, replace(content, uncertain=False).unanswered) == (content.maybe, ())


def test_what_is_taken_back() -> None:
    """An unanswered version is the agent's alone if it was brought home just so; all others stay ours."""
    sent = Manifest({"a": replace(OLD, mtime_s=OLD.mtime_s + 1), "b": NEW, "u": NEW})
    content = SandboxContent(BASE, (sent, Manifest({"b": NEWER})), uncertain=True)
    back = content.without_taken_back(Manifest({"b": OLD}), ["a", "b"])
    assert (back.base, back.uncertain) == (Manifest({"b": OLD}), True)
    assert back.maybe == (Manifest({"b": NEW, "u": NEW}), Manifest({"b": NEWER}))
    only_a = SandboxContent(BASE, (Manifest({"a": OLD}),), uncertain=True)
    assert only_a.without_taken_back(Manifest(), ["a"]).maybe == ()


def test_the_directories_in_which_something_is_not_as_it_was_put_there() -> None:
    """None where nothing is known to be there."""
    entries = [("d", DIRECTORY), ("d/e/a", NEW), ("f/a", OLD)]
    content = SandboxContent(Manifest({"d": DIRECTORY, "d/e": DIRECTORY, "d/e/a": OLD, "f": DIRECTORY, "f/a": OLD}))
    assert (content.changed_in(entries), UNKNOWN.changed_in(entries)) == ({"d", "d/e"}, set())


@pytest.mark.parametrize(
    ("content", "found", "may_differ"),
    [
        (SandboxContent(BASE), Difference(), False),
        (SandboxContent(BASE), Difference(added=["c"]), True),
        (SandboxContent(BASE), Difference(to_read=["a"]), True),
        (SandboxContent(BASE, uncertain=True), Difference(), True),
        (UNKNOWN, Difference(), True),
    ],
)
def test_it_may_differ(content: SandboxContent, found: Difference, may_differ: bool) -> None:
    assert content.may_differ(found) is may_differ


@pytest.mark.parametrize(
    ("row", "after"),
    [
        (TakenPath("a", OLD, NEW), {"a": NEW, "b": OLD}),
        (TakenPath("a", OLD, None), {"b": OLD}),
        (TakenPath("c", None, NEW), {"a": OLD, "b": OLD, "c": NEW}),
        (TakenPath("a", OLD, NEW, is_excluded=True), {"b": OLD}),
        # A sync that came in between knows better.
        (TakenPath("a", NEW, NEWER), {"a": OLD, "b": OLD}),
        (TakenPath("c", NEW, None), {"a": OLD, "b": OLD}),
        (TakenPath("a", replace(OLD, mode=OLD.mode ^ 0o020), NEW), {"a": OLD, "b": OLD}),
        (TakenPath("c", None, NEW, is_excluded=True), {"a": OLD, "b": OLD}),
    ],
)
def test_what_was_brought_home_counts_as_sent(row: TakenPath, after: dict[str, Entry]) -> None:
    assert with_taken(BASE, [row]) == after
