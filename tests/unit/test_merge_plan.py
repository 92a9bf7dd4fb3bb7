"""The plan of an `apply`: each row of the contract's table, and what holds for every input."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from syncd.merge.merge_plan import (
    MergeOutcome,
    MergePlan,
    PlanInput,
    is_as_base,
    is_as_remote,
    merge_plan,
    merged_mode,
    next_base,
    sent_mode,
    taken_mode,
)
from syncd.merge.writes import OTHER, LocalEntry
from syncd.sandbox.look_request import ABSENT, RemoteEntry, RemoteKind
from syncd.scan.entry import Entry, Kind

TAKE, SAME, MERGE, CONFLICT = MergeOutcome.TAKE, MergeOutcome.SAME, MergeOutcome.MERGE, MergeOutcome.CONFLICT
DELETE, DELETED, STAYS, NEVER = (
    MergeOutcome.DELETE,
    MergeOutcome.DELETED_THERE,
    MergeOutcome.STAYS,
    MergeOutcome.NEVER,
)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def base(text: str, mode: int = 0o644) -> Entry:
    return Entry(Kind.FILE, mode, 0, len(text), digest=digest(text))


def local(text: str, mode: int = 0o644) -> LocalEntry:
    return LocalEntry(Kind.FILE, mode, len(text), digest=digest(text))


def remote(text: str, mode: int = 0o644) -> RemoteEntry:
    return RemoteEntry(RemoteKind.FILE, mode, len(text), digest=digest(text), copy="/copies/0")


BASE_DIRECTORY, BASE_LINK = Entry(Kind.DIRECTORY, 0o755, 0), Entry(Kind.SYMLINK, 0o777, 0, target="a")
HERE_DIRECTORY, HERE_LINK = LocalEntry(Kind.DIRECTORY, 0o755), LocalEntry(Kind.SYMLINK, target="a")
THERE_DIRECTORY, THERE_LINK = RemoteEntry(RemoteKind.DIRECTORY, 0o755), RemoteEntry(RemoteKind.SYMLINK, target="b")
FIFO = RemoteEntry(RemoteKind.OTHER)


def plan(
    remotes: dict[str, RemoteEntry],
    bases: dict[str, Entry] | None = None,
    locals_: dict[str, LocalEntry | None] | None = None,
    *,
    deletions: bool = False,
    links: dict[str, str] | None = None,
    children: dict[str, list[str]] | None = None,
) -> MergePlan:
    here, found = links or {}, children or {}
    return merge_plan(
        PlanInput(bases or {}, locals_ or {}, remotes, deletions, here.get, lambda path: found.get(path, []))
    )


@pytest.mark.parametrize(
    ("before", "here", "there", "outcome"),
    [
        (base("b"), local("b"), remote("r"), TAKE),
        (None, None, remote("r"), TAKE),
        (None, None, THERE_DIRECTORY, TAKE),
        (None, None, THERE_LINK, TAKE),
        (base("b"), local("b"), THERE_LINK, TAKE),
        (base("b"), local("b"), THERE_DIRECTORY, TAKE),
        (base("b"), local("b"), remote("b", 0o755), TAKE),
        (BASE_LINK, HERE_LINK, THERE_LINK, TAKE),
        (base("b"), local("r"), remote("r"), SAME),
        (None, local("r"), remote("r"), SAME),
        (None, HERE_DIRECTORY, THERE_DIRECTORY, SAME),
        (base("b"), None, ABSENT, SAME),
        (base("b"), local("l"), remote("r"), MERGE),
        (base("b"), local("b", 0o755), remote("r"), MERGE),
        (None, local("l"), remote("r"), CONFLICT),
        (base("b"), HERE_DIRECTORY, remote("r"), STAYS),
        (base("b"), local("l"), THERE_LINK, CONFLICT),
        (BASE_LINK, replace(HERE_LINK, target="c"), THERE_LINK, CONFLICT),
        (base("b"), local("b"), ABSENT, DELETED),
        (BASE_DIRECTORY, HERE_DIRECTORY, ABSENT, DELETED),
        (base("b"), local("l"), ABSENT, STAYS),
        (base("b"), None, remote("r"), STAYS),
        (base("b"), local("b"), replace(remote("r"), copy="", unstable=True), STAYS),
        (base("b"), local("b"), replace(remote("r"), copy=""), STAYS),
        (base("b"), local("b"), RemoteEntry(RemoteKind.UNREADABLE), STAYS),
        (base("b"), local("b"), FIFO, NEVER),
        (None, None, replace(THERE_LINK, target="../out"), NEVER),
        (base("b"), local("b"), replace(THERE_LINK, target="/etc/passwd"), NEVER),
        (None, OTHER, remote("r"), NEVER),
    ],
)
def test_the_table(before: Entry | None, here: LocalEntry | None, there: RemoteEntry, outcome: MergeOutcome) -> None:
    """Each state of the three sides has one outcome."""
    bases = {} if before is None else {"p": before}
    found = plan({"p": there}, bases, {"p": here})
    # A directory here that a file there replaces needs --deletions.
    if here is HERE_DIRECTORY and there.kind is RemoteKind.FILE:
        outcome = CONFLICT
    assert [planned.outcome for planned in found.paths] == [outcome]


def test_deletions_are_asked_for() -> None:
    """What was deleted there is deleted here with --deletions alone, and only as it was sent."""
    sides = {"p": base("b"), "q": base("b")}, {"p": local("b"), "q": local("l")}
    found = plan({"p": ABSENT, "q": ABSENT}, *sides, deletions=True)
    assert [planned.outcome for planned in found.paths] == [DELETE, STAYS]


@pytest.mark.parametrize("path", [".git/config", "sub/.git/hooks/x", "a/.GIT/x", ".git"])
def test_no_repository_is_written_to(path: str) -> None:
    """At any depth, in any letter case."""
    assert [planned.outcome for planned in plan({path: remote("r")}).paths] == [NEVER]


def test_links_lead_out_through_one_another() -> None:
    """Two links that each stay inside by their text may lead outside together; so may one with a link here."""
    there = {"a": replace(THERE_LINK, target="d/x"), "d/x": replace(THERE_LINK, target="../../out")}
    assert all(planned.outcome is NEVER for planned in plan(there, links={}).paths if planned.path == "d/x")
    led = plan({"a": replace(THERE_LINK, target="here/../../x")}, links={"here": "deep/er"})
    assert [planned.outcome for planned in led.paths] == [NEVER]


def test_a_directory_in_a_files_place() -> None:
    """It is taken with what is in it, though nothing of that can be seen here before."""
    there = {"p": THERE_DIRECTORY, "p/new": remote("r")}
    found = plan(there, {"p": base("b")}, {"p": local("b"), "p/new": OTHER})
    assert [planned.outcome for planned in found.paths] == [TAKE, TAKE]


def test_what_is_below_a_conflict_is_one() -> None:
    """Nothing is written below a path that does not become a directory."""
    there = {"p": THERE_DIRECTORY, "p/new": remote("r")}
    found = plan(there, {"p": base("b")}, {"p": local("l"), "p/new": OTHER})
    assert [planned.outcome for planned in found.paths] == [CONFLICT, CONFLICT]


def test_a_file_in_a_directorys_place() -> None:
    """It is taken if all that is here below was deleted there and is deleted here, too."""
    sides = {"d": BASE_DIRECTORY, "d/a": base("a")}, {"d": HERE_DIRECTORY, "d/a": local("a")}
    there = {"d": remote("r"), "d/a": ABSENT}
    alone = plan(there, *sides, deletions=True, children={"d": ["d/a"]})
    assert [planned.outcome for planned in alone.paths] == [TAKE, DELETE]
    more = plan(there, *sides, deletions=True, children={"d": ["d/a", "d/mine"]})
    assert [planned.outcome for planned in more.paths] == [CONFLICT, STAYS]


def test_what_gave_way_to_a_link_that_leads_out_is_not_deleted() -> None:
    """The link is not taken, so the files of the directory stay, though they are gone there."""
    sides = {"d": BASE_DIRECTORY, "d/a": base("a")}, {"d": HERE_DIRECTORY, "d/a": local("a")}
    there = {"d": RemoteEntry(RemoteKind.SYMLINK, target="/etc"), "d/a": ABSENT}
    found = plan(there, *sides, deletions=True, children={"d": ["d/a"]})
    assert [planned.outcome for planned in found.paths] == [NEVER, STAYS]


@pytest.mark.parametrize(
    ("before", "here", "there", "mode"),
    [
        (None, None, 0o640, 0o640),
        (0o644, 0o600, 0o644, 0o600),
        (0o644, 0o640, 0o755, 0o750),
        (0o755, 0o755, 0o644, 0o644),
        (0o755, 0o711, 0o600, 0o600),
    ],
)
def test_the_mode_of_a_taken_file(before: int | None, here: int | None, there: int, mode: int) -> None:
    """The bits here stay; a change of the executable bit there is taken."""
    was = None if before is None else base("b", before)
    now = None if here is None else local("b", here)
    assert taken_mode(was, now, remote("r", there)) == mode


def test_the_mode_of_a_merged_file() -> None:
    """The side that changed the executable bit decides."""
    assert merged_mode(base("b", 0o644), local("l", 0o755), remote("r", 0o644)) == 0o755
    assert merged_mode(base("b", 0o644), local("l", 0o644), remote("r", 0o755)) == 0o755
    assert merged_mode(base("b", 0o755), local("l", 0o755), remote("r", 0o644)) == 0o644


@pytest.mark.parametrize(
    ("here", "there", "mode"),
    [(0o755, 0o644, 0o644), (0o640, 0o755, 0o750), (0o600, 0o644, 0o600), (0o755, 0o700, 0o755)],
)
def test_the_mode_that_counts_as_sent_after_a_merge(here: int, there: int, mode: int) -> None:
    """It is as executable as the file there: a change of that bit here is still to be sent."""
    assert sent_mode(LocalEntry(Kind.FILE, here), RemoteEntry(RemoteKind.FILE, there)) == mode


def test_the_next_base() -> None:
    """It is the sandbox's version; a link has the mode that a scan gives it, and what is gone has none."""
    (planned,) = plan({"p": remote("r")}, {"p": base("b")}, {"p": local("b")}).paths
    assert next_base(planned, 0o600) == Entry(Kind.FILE, 0o600, 0, 1, digest=digest("r"))
    (planned,) = plan({"p": THERE_LINK}).paths
    assert next_base(planned, 0) == Entry(Kind.SYMLINK, 0o777, 0, target="b")
    (planned,) = plan({"p": ABSENT}, {"p": base("b")}).paths
    assert next_base(planned, 0) is None


BASES = st.sampled_from([None, base("a"), base("b"), base("a", 0o755), BASE_DIRECTORY, BASE_LINK])
LOCALS = st.sampled_from([None, local("a"), local("b"), local("c"), HERE_DIRECTORY, HERE_LINK, OTHER])
REMOTES = st.sampled_from([ABSENT, remote("a"), remote("b"), remote("d"), THERE_DIRECTORY, THERE_LINK, FIFO])


@given(BASES, LOCALS, REMOTES, st.booleans())
def test_nothing_that_differs_from_the_base_is_replaced(
    before: Entry | None, here: LocalEntry | None, there: RemoteEntry, deletions: bool
) -> None:
    """Whatever the three sides are: what is here is replaced or deleted only if it is as it was sent."""
    bases = {} if before is None else {"p": before}
    (planned,) = plan({"p": there}, bases, {"p": here}, deletions=deletions).paths
    if planned.outcome in (TAKE, DELETE):
        assert here is None or is_as_base(here, before)
    if planned.outcome is SAME:
        assert is_as_remote(here, there)
