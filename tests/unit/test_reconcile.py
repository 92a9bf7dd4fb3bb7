"""The decision by three sides: each row of its table, and in all small worlds that no version is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import product

import pytest
from msgspec.structs import replace

from syncd.core.choices import AgentChanges
from syncd.merge.home import merged_mode, next_base, taken_mode
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, Stamp, same
from syncd.model.manifest import Manifest
from syncd.model.reconcile import (
    Choice,
    Forced,
    Home,
    PathOutcome,
    Plan,
    PlannedPath,
    Sides,
    left_over,
    obstructed_by,
    obstructing,
    paths_to_delete,
    plan_home,
    plan_sync,
    waits,
)
from syncd.sandbox.look_request import was_emptied

SAME, WRITE, SAVE, KEEP, HOLD = (
    PathOutcome.SAME,
    PathOutcome.WRITE,
    PathOutcome.SAVE,
    PathOutcome.KEEP,
    PathOutcome.HOLD,
)
TAKE, MERGE, CONFLICT, DELETE = PathOutcome.TAKE, PathOutcome.MERGE, PathOutcome.CONFLICT, PathOutcome.DELETE
DELETED, STAYS, NEVER = PathOutcome.DELETED_THERE, PathOutcome.STAYS, PathOutcome.NEVER
UNFETCHED = PathOutcome.UNFETCHED
MINE, THEIRS, MARKERS = Choice
POLICIES = (AgentChanges.SAVE, AgentChanges.HOLD, Forced.FORCE, AgentChanges.OVERWRITE)


def file(text: str, mode: int = 0o644) -> SeenEntry:
    digest = hashlib.sha256(text.encode()).digest()
    return SeenEntry(Kind.FILE, mode, size_bytes=len(text), digest=digest, copy="/copies/0")


DIRECTORY, LINK, OTHER_LINK = (
    SeenEntry(Kind.DIRECTORY, 0o755),
    SeenEntry(Kind.SYMLINK, target="a"),
    SeenEntry(Kind.SYMLINK, target="b"),
)
OUT, FIFO, UNREAD = SeenEntry(Kind.SYMLINK, target="../o"), SeenEntry(Kind.OTHER), SeenEntry(Kind.UNREAD)
BASE, HERE, THERE = file("b"), file("h"), file("t")
NOT_FETCHED, UNSTABLE = replace(THERE, copy="", digest=b""), replace(THERE, copy="", digest=b"", unstable=True)


def tree(entry: SeenEntry) -> dict[str, SeenEntry]:
    return {} if entry == ABSENT else {"p": entry}


def home(here: Mapping[str, Entry], *, deletions: bool = False, links: Mapping[str, str] | None = None) -> Home:
    def names_in(path: str) -> list[str]:
        return [each.rpartition("/")[2] for each in here if each.rpartition("/")[0] == path]

    return Home(deletions, dict(links or {}).get, names_in)


def outcomes(plan: Plan) -> list[PathOutcome]:
    return [planned.outcome for planned in plan.paths]


def reasons(plan: Plan) -> list[str]:
    return [planned.reason for planned in plan.paths]


SYNC_ROWS = {
    (BASE, BASE, BASE): (SAME, SAME, SAME, SAME),
    (BASE, replace(BASE, mode=0o600), BASE): (WRITE, WRITE, WRITE, WRITE),
    (BASE, BASE, ABSENT): (WRITE, WRITE, WRITE, WRITE),
    (BASE, BASE, THERE): (KEEP, KEEP, SAVE, WRITE),
    (BASE, BASE, NOT_FETCHED): (KEEP, KEEP, KEEP, WRITE),
    (BASE, BASE, UNSTABLE): (KEEP, KEEP, KEEP, WRITE),
    (BASE, BASE, OTHER_LINK): (KEEP, KEEP, SAVE, WRITE),
    (BASE, BASE, DIRECTORY): (KEEP, KEEP, KEEP, WRITE),
    (BASE, HERE, ABSENT): (WRITE, WRITE, WRITE, WRITE),
    (BASE, HERE, BASE): (WRITE, WRITE, WRITE, WRITE),
    (BASE, HERE, HERE): (SAME, SAME, SAME, SAME),
    (BASE, HERE, THERE): (SAVE, HOLD, SAVE, WRITE),
    (ABSENT, HERE, THERE): (SAVE, HOLD, SAVE, WRITE),
    (BASE, replace(BASE, mode=0o600), THERE): (SAVE, HOLD, SAVE, WRITE),
    (BASE, HERE, NOT_FETCHED): (HOLD, HOLD, HOLD, WRITE),
    (BASE, HERE, UNSTABLE): (HOLD, HOLD, HOLD, WRITE),
    (BASE, HERE, OTHER_LINK): (SAVE, HOLD, SAVE, WRITE),
    (BASE, HERE, DIRECTORY): (HOLD, HOLD, HOLD, WRITE),
    (BASE, HERE, FIFO): (HOLD, HOLD, HOLD, WRITE),
    (BASE, ABSENT, ABSENT): (SAME, SAME, SAME, SAME),
    (BASE, ABSENT, THERE): (KEEP, KEEP, SAVE, WRITE),
    (BASE, ABSENT, NOT_FETCHED): (KEEP, KEEP, KEEP, WRITE),
    (BASE, ABSENT, DIRECTORY): (KEEP, KEEP, KEEP, WRITE),
}


def test_the_table_of_a_sync() -> None:
    """Each state of the three sides has one outcome for each setting."""
    for (base, here, there), row in SYNC_ROWS.items():
        plans = [plan_sync(Sides(tree(base), tree(here), {"p": there}), policy) for policy in POLICIES]
        assert [outcomes(plan) for plan in plans] == [[each] for each in row], (base, here, there)


HOME_ROWS = [
    (BASE, BASE, THERE, TAKE),
    (ABSENT, ABSENT, THERE, TAKE),
    (ABSENT, ABSENT, DIRECTORY, TAKE),
    (ABSENT, ABSENT, LINK, TAKE),
    (BASE, BASE, LINK, TAKE),
    (BASE, BASE, DIRECTORY, TAKE),
    (BASE, BASE, file("b", 0o755), TAKE),
    (LINK, LINK, OTHER_LINK, TAKE),
    (BASE, THERE, THERE, SAME),
    (ABSENT, THERE, THERE, SAME),
    (ABSENT, DIRECTORY, DIRECTORY, SAME),
    (BASE, ABSENT, ABSENT, SAME),
    (BASE, HERE, THERE, MERGE),
    (BASE, file("b", 0o755), THERE, MERGE),
    (ABSENT, file("t", 0o755), THERE, MERGE),
    (ABSENT, HERE, THERE, CONFLICT, "new on both sides"),
    (ABSENT, replace(HERE, digest=b""), replace(THERE, digest=b""), CONFLICT, "new on both sides"),
    (BASE, DIRECTORY, THERE, CONFLICT, "of different kinds"),
    (BASE, HERE, LINK, CONFLICT, "of different kinds"),
    (BASE, replace(HERE, kind=Kind.UNREAD), LINK, CONFLICT, "it cannot be read here, or is being written"),
    (LINK, replace(LINK, target="c"), OTHER_LINK, CONFLICT, "changed on both sides"),
    (BASE, BASE, ABSENT, DELETED),
    (DIRECTORY, DIRECTORY, ABSENT, DELETED),
    (BASE, HERE, ABSENT, STAYS, "deleted in the sandbox, changed here"),
    (BASE, ABSENT, THERE, STAYS, "deleted here, changed in the sandbox"),
    (BASE, HERE, BASE, STAYS, "only changed here"),
    (DIRECTORY, DIRECTORY, THERE, STAYS, "a directory here, no directory there; --deletions applies it"),
    (BASE, BASE, UNSTABLE, UNFETCHED, "it is still being written in the sandbox"),
    (BASE, BASE, NOT_FETCHED, UNFETCHED, "its content could not be fetched"),
    (BASE, BASE, UNREAD, UNFETCHED, "it cannot be read in the sandbox"),
    (BASE, BASE, FIFO, NEVER, "it is a socket, a FIFO or a device"),
    (ABSENT, ABSENT, OUT, NEVER, "it is a link that leads out of the workspace"),
    (BASE, BASE, replace(OUT, target="/etc/passwd"), NEVER, "it is a link that leads out of the workspace"),
    (ABSENT, FIFO, THERE, NEVER, "its place here is behind a link, or holds a device"),
]


def test_the_table_of_apply() -> None:
    """Each state of the three sides has one outcome, with a reason where that does not say it."""
    for base, here, there, outcome, *reason in HOME_ROWS:
        plan = plan_home(Sides(tree(base), tree(here), {"p": there}), home(tree(here)))
        assert (outcomes(plan), reasons(plan)) == ([outcome], reason or [""]), (base, here, there)


DECIDED_ROWS = [
    (BASE, HERE, THERE, WRITE, TAKE, MERGE),
    (ABSENT, HERE, THERE, WRITE, TAKE, MERGE),
    (BASE, HERE, LINK, WRITE, TAKE, MERGE),
    (BASE, DIRECTORY, THERE, WRITE, TAKE, MERGE),
    (BASE, HERE, ABSENT, WRITE, DELETE, MERGE),
    (BASE, file("b", 0o755), ABSENT, WRITE, DELETE, MERGE),
    (BASE, ABSENT, THERE, WRITE, TAKE, MERGE),
    (BASE, BASE, THERE, TAKE, TAKE, TAKE),
    (BASE, HERE, BASE, STAYS, STAYS, STAYS),
    (BASE, THERE, THERE, SAME, SAME, SAME),
    (BASE, BASE, ABSENT, DELETED, DELETED, DELETED),
    (BASE, HERE, UNSTABLE, UNFETCHED, UNFETCHED, UNFETCHED),
    (BASE, ABSENT, NOT_FETCHED, UNFETCHED, UNFETCHED, UNFETCHED),
    (BASE, HERE, OUT, NEVER, NEVER, NEVER),
    (BASE, HERE, FIFO, NEVER, NEVER, NEVER),
]


def test_the_table_of_choices() -> None:
    """A choice decides what both sides changed, and nothing else: mine, theirs, and a text of both."""
    for base, here, there, *row in DECIDED_ROWS:
        sides = Sides(tree(base), tree(here), {"p": there})
        for choice, outcome in zip((MINE, THEIRS, MARKERS), row, strict=True):
            plan = plan_home(sides, replace(home(tree(here)), choices={"p": choice}))
            assert outcomes(plan) == [outcome], (base, here, there, choice)
            assert outcome in (STAYS, UNFETCHED, NEVER) or reasons(plan) == [""]


def test_what_waits_for_a_person() -> None:
    """A conflict, and what one side deleted and the other changed."""
    for outcome, base, here, there, expected in (
        (CONFLICT, BASE, BASE, THERE, True),
        (DELETE, BASE, HERE, ABSENT, False),
        (STAYS, BASE, HERE, ABSENT, True),
        (STAYS, BASE, ABSENT, THERE, True),
        (STAYS, BASE, BASE, ABSENT, False),
        (STAYS, ABSENT, ABSENT, THERE, False),
        (STAYS, BASE, HERE, THERE, False),
    ):
        assert waits(PlannedPath("p", outcome, base, here, there)) is expected, (outcome, base, here, there)


def test_choices_below_a_folder_in_a_files_place() -> None:
    """Theirs comes whole, and only so; mine stays with what was to be taken below it."""
    here = {"p": HERE, "p/new": FIFO}
    sides = Sides({"p": BASE}, here, {"p": DIRECTORY, "p/new": THERE})
    for choices, expected in (
        ({"p": THEIRS, "p/new": THEIRS}, [TAKE, TAKE]),
        ({"p/new": THEIRS}, [CONFLICT, CONFLICT]),
        ({"p": MINE, "p/new": MINE}, [WRITE, WRITE]),
    ):
        assert outcomes(plan_home(sides, replace(home(here), choices=choices))) == expected
    kept = {"d": DIRECTORY, "d/mine": HERE}
    plan = plan_home(Sides({}, kept, {"d": THERE}), replace(home(kept), choices={"d": THEIRS}))
    assert outcomes(plan) == [CONFLICT]  # what is only here would go with its folder


def test_deletions_are_asked_for() -> None:
    """What was deleted there is deleted here with --deletions alone, and only as it was sent."""
    here = {"p": BASE, "q": HERE}
    plan = plan_home(Sides({"p": BASE, "q": BASE}, here, {"p": ABSENT, "q": ABSENT}), home(here, deletions=True))
    assert (outcomes(plan), reasons(plan)) == ([DELETE, STAYS], ["", "deleted in the sandbox, changed here"])


def test_what_another_case_of_its_name_has_is_not_deleted() -> None:
    """Where a disk does not tell cases apart, a rename there of that alone leaves the only file here; else it goes."""
    folder, text = (replace(each, stamp=Stamp(1, 2, inode, 4)) for inode, each in enumerate((DIRECTORY, BASE)))
    here = {"D": folder, "D/Read": text, "d": folder, "d/read": text}
    there = {"D": ABSENT, "D/Read": ABSENT, "d": DIRECTORY, "d/read": BASE}
    plan = plan_home(Sides({"D": DIRECTORY, "D/Read": BASE}, here, there), home(here, deletions=True))
    assert outcomes(plan) == [STAYS, STAYS, SAME, SAME]
    assert {*reasons(plan)[:2]} == {"it is here by its new name, too, as this disk does not tell upper from lower case"}
    del here["d"], here["d/read"]
    plan = plan_home(Sides({"D": DIRECTORY, "D/Read": BASE}, here, there), home(here, deletions=True))
    assert outcomes(plan) == [DELETE, DELETE, TAKE, TAKE]


def test_a_directory_goes_with_all_that_is_in_it() -> None:
    """With something of the person's in it, it stays, and so does the directory above; each time."""
    base = {"d": DIRECTORY, "d/e": DIRECTORY, "d/e/f": BASE}
    gone = Sides(base, base, dict.fromkeys(base, ABSENT))
    assert outcomes(plan_home(gone, home(base, deletions=True))) == [DELETE, DELETE, DELETE]
    more = {**base, "d/e/.env": HERE}
    assert outcomes(plan_home(gone, home(more, deletions=True))) == [STAYS, STAYS, DELETE]


def test_no_repository_is_written_to() -> None:
    """At any depth, in any letter case."""
    paths = dict.fromkeys([".git/config", "sub/.git/hooks/x", "a/.GIT/x", ".git"], THERE)
    plan = plan_home(Sides({}, {}, paths), home({}))
    assert (set(outcomes(plan)), set(reasons(plan))) == ({NEVER}, {"it is inside of a .git"})


def test_links_lead_out_through_one_another() -> None:
    """Two links that each stay inside by their text may lead outside together; so may one with a link here."""
    there = {"a": replace(LINK, target="d/x"), "d/x": replace(LINK, target="../../out")}
    assert outcomes(plan_home(Sides({}, {}, there), home({})))[1] is NEVER
    through = {"a": replace(LINK, target="d/up/../x")}
    for more, links in (({"d/up": replace(LINK, target="..")}, {}), ({}, {"d/up": ".."})):
        led = plan_home(Sides({}, {}, {**through, **more}), home({}, links=links))
        assert outcomes(led) == [NEVER, *([TAKE] if more else [])]
    beside = {"a": replace(LINK, target="d/../x"), "d": DIRECTORY}
    assert outcomes(plan_home(Sides({}, {}, beside), home({}))) == [TAKE, TAKE]
    assert outcomes(plan_home(Sides({}, {}, {**through, "d/up": DIRECTORY}), home({}, links={"d/up": ".."})))[0] is TAKE


def test_a_directory_in_a_files_place() -> None:
    """It is taken with what is in it, though nothing of that can be seen here before; below a conflict is one."""
    there = {"p": DIRECTORY, "p/new": THERE}
    for here, outcome, why in (
        (BASE, TAKE, ["", ""]),
        (HERE, CONFLICT, ["of different kinds", "its directory is not applied: of different kinds"]),
        (FIFO, NEVER, [_BEHIND, f"its directory is not applied: {_BEHIND}"]),
    ):
        sides = Sides({"p": BASE}, {"p": here, "p/new": ABSENT if here is FIFO else FIFO}, there)
        plan = plan_home(sides, home(sides.here))
        assert (outcomes(plan), reasons(plan)) == ([outcome, outcome], why)
    deep = Sides({"p": BASE}, {"p": BASE, "p/q/new": FIFO}, {"p": DIRECTORY, "p/q": DIRECTORY, "p/q/new": THERE})
    assert outcomes(plan_home(deep, home(deep.here))) == [TAKE, TAKE, TAKE]
    deep = replace(deep, here={"p": HERE})
    why = ["of different kinds", *["its directory is not applied: of different kinds"] * 2]
    assert reasons(plan_home(deep, home(deep.here))) == why


_BEHIND = "its place here is behind a link, or holds a device"


def test_what_is_above_a_path_here() -> None:
    """Nothing is written through a link, below a file, or in the place of what the sandbox does not tell of."""
    for above, inside, outcome, why in (
        (LINK, ABSENT, NEVER, "its place here is behind a link"),
        (BASE, ABSENT, CONFLICT, "its directory is none here"),
        (BASE, FIFO, NEVER, _BEHIND),
        (DIRECTORY, ABSENT, TAKE, ""),
    ):
        sides = Sides({"p": above}, {"p": above, "p/new": inside}, {"p/new": THERE})
        plan = plan_home(sides, home(sides.here))
        assert (outcomes(plan), reasons(plan)) == ([outcome], [why])


def test_a_file_in_a_directorys_place() -> None:
    """It is taken if all that is here below was deleted there and is deleted here, too."""
    base = {"d": DIRECTORY, "d/a": BASE}
    sides = Sides(base, base, {"d": THERE, "d/a": ABSENT})
    assert outcomes(plan_home(sides, home(base, deletions=True))) == [TAKE, DELETE]
    mine = {**base, "d/mine": HERE}
    kept = plan_home(sides, home(mine, deletions=True))
    holds_more, gave_way = (
        "its directory here holds more than was deleted there",
        "its directory gave way there to something that is not applied",
    )
    assert (outcomes(kept), reasons(kept)) == ([CONFLICT, STAYS], [holds_more, gave_way])
    waits = plan_home(sides, home(base))
    assert (outcomes(waits), waits.paths[0].reason.endswith("--deletions applies it")) == ([STAYS, DELETED], True)
    kept = plan_home(sides, home(mine))
    assert (outcomes(kept), reasons(kept)) == ([CONFLICT, DELETED], [holds_more, ""])
    ours = plan_home(sides, replace(home(mine), choices={"d": MINE}))  # what went with it is sent again with it
    assert [(each.outcome, each.choice) for each in ours.paths] == [(WRITE, MINE)] * 2
    assert outcomes(plan_home(sides, replace(home(mine), choices={"d/a": MINE}))) == [CONFLICT, DELETED]
    deeper = Sides(base | {"d/s": DIRECTORY, "d/s/b": BASE}, base | {"d/s": DIRECTORY, "d/s/b": BASE}, {})
    there = {"d": THERE, "d/a": ABSENT, "d/s": ABSENT, "d/s/b": ABSENT}
    sides = replace(deeper, there=there)
    assert outcomes(plan_home(sides, home(deeper.here)))[0] is STAYS
    assert outcomes(plan_home(sides, home({**deeper.here, "d/s/mine": HERE})))[0] is CONFLICT
    led_out = Sides(base, base, {"d": OUT, "d/a": ABSENT})
    assert outcomes(plan_home(led_out, home(base, deletions=True))) == [NEVER, STAYS]


def test_what_is_below_a_path_that_stays_is_not_written() -> None:
    """A directory that the agent replaced by a file or a link takes all that is below it here with it."""
    base = {"d": DIRECTORY, "d/a": BASE, "d/b": DIRECTORY, "d/b/c": BASE, "e": BASE}
    plan = plan_sync(Sides(base, base, {"d": THERE, "d/a": ABSENT, "d/b/c": ABSENT, "e": ABSENT}), AgentChanges.SAVE)
    assert plan.stays == {"d": THERE}
    assert (outcomes(plan), plan.paths[0]) == ([KEEP, WRITE], PlannedPath("d", KEEP, DIRECTORY, DIRECTORY, THERE))
    assert outcomes(plan.with_outcome(["d"], STAYS, "why")) == [STAYS, WRITE]
    assert (reasons(plan.with_outcome(["d"], STAYS, "why")), plan.of(WRITE)) == (["why", ""], [plan.paths[1]])


def test_what_could_not_be_saved_or_is_changed_below() -> None:
    """It stays as it is there, and so does a directory in which something was changed that is gone here."""
    both = Sides({"p": BASE}, {"p": HERE}, {"p": THERE})
    assert outcomes(plan_sync(both, AgentChanges.SAVE, unsaved=["p"])) == [HOLD]
    assert outcomes(plan_sync(Sides({}, {}, {"p": THERE}), Forced.FORCE, unsaved=["p"])) == [KEEP]
    kinds = Sides({"d": DIRECTORY}, {"d": DIRECTORY}, {"d": THERE})
    assert [outcomes(plan_sync(kinds, AgentChanges.SAVE, below)) for below in ((), ["d"])] == [[KEEP], [SAVE]]


def test_what_is_never_taken() -> None:
    """A list of submodules that git would refuse, and one that is a link."""
    asked: list[str] = []

    def refused(copy: str) -> str:
        asked.append(copy)
        return "it names a path out of the workspace"

    def reason(there: SeenEntry) -> list[str]:
        return reasons(plan_home(Sides({}, {}, {".gitmodules": there}), replace(home({}), refused_submodules=refused)))

    assert reason(THERE) == ["it names a path out of the workspace"]
    assert (reason(LINK), asked) == (["git allows no link of this name"], [THERE.copy])


# -- all small worlds


def worlds(top: list[SeenEntry], inner: list[SeenEntry]) -> Iterator[dict[str, SeenEntry]]:
    """Yield all trees of `d` and `d/f`."""
    for entry in top:
        for below in inner if entry.is_directory else [ABSENT]:
            found = {"d": entry, "d/f": below}
            yield {path: each for path, each in found.items() if each != ABSENT}


BASES = list(worlds([ABSENT, BASE, LINK, DIRECTORY], [ABSENT, BASE, DIRECTORY]))
HERES = list(worlds([ABSENT, BASE, HERE, OTHER_LINK, DIRECTORY], [ABSENT, BASE, HERE, DIRECTORY]))
THERES = list(
    worlds([ABSENT, BASE, HERE, THERE, OUT, FIFO, DIRECTORY], [ABSENT, BASE, THERE, LINK, NOT_FETCHED, DIRECTORY])
)


def differing(base: Mapping[str, SeenEntry], there: Mapping[str, SeenEntry]) -> dict[str, SeenEntry]:
    paths = sorted({*base, *there})
    return {p: there.get(p, ABSENT) for p in paths if not same(base.get(p, ABSENT), there.get(p, ABSENT))}


def by_path(plan: Plan) -> dict[str, PlannedPath]:
    return {planned.path: planned for planned in plan.paths}


def test_a_choice_loses_nothing_of_the_persons_but_what_it_names() -> None:
    """With theirs for all, what only is here stays; nothing waits on without a reason; no choice adds a path."""
    for base, here, there in product(BASES, HERES, THERES):
        sides = Sides(base, here, differing(base, there))
        undecided = by_path(plan_home(sides, home(here)))
        for choice in Choice:
            choices = dict.fromkeys(sides.there, choice)
            for path, planned in by_path(plan_home(sides, replace(home(here), choices=choices))).items():
                was = undecided[path]
                if not waits(was) and was.outcome is not MERGE and not was.reason.startswith("its directory"):
                    above = undecided.get(path.rpartition("/")[0])
                    assert planned.outcome is was.outcome or (above and waits(above)), (base, here, there, choice)
                if planned.outcome is DELETE:
                    assert choice is THEIRS
                    assert planned.there == ABSENT
                assert choice is not MINE or not waits(planned), (base, here, there, choice)


# -- modes, and what counts as sent


@pytest.mark.parametrize(
    ("before", "here", "there", "mode"),
    [
        (None, None, 0o640, 0o640),
        (None, 0o755, 0o644, 0o644),
        (0o644, 0o755, 0o644, 0o755),
        (0o644, 0o600, 0o644, 0o600),
        (0o644, 0o640, 0o755, 0o750),
        (0o755, 0o755, 0o644, 0o644),
        (None, None, 0o777, 0o755),
        (None, None, 0o666, 0o644),
        (None, None, 0o000, 0o400),  # an undo reads what it takes back
        (0o644, 0o644, 0o666, 0o644),
        # What counts as sent after a merge is as executable as the file there: a change of that bit here is to be sent.
        (0o640, 0o640, 0o755, 0o750),
        (0o600, 0o600, 0o644, 0o600),
        (0o755, 0o755, 0o700, 0o755),
    ],
)
def test_the_mode_of_a_taken_file(before: int | None, here: int | None, there: int, mode: int) -> None:
    """The bits here stay; a change of the executable bit there is taken; a umask of 022 keeps others from writing."""
    was = ABSENT if before is None else file("b", before)
    now = ABSENT if here is None else file("b", here)
    assert taken_mode(was, now, file("r", there), 0o022) == mode
    assert taken_mode(DIRECTORY, DIRECTORY, replace(DIRECTORY, mode=0o644), 0o022) == 0o755
    assert taken_mode(ABSENT, ABSENT, replace(DIRECTORY, mode=0o500), 0o022) == 0o700  # what comes with it goes in


@pytest.mark.parametrize(
    ("umask", "file_mode", "folder_mode"),
    [(0o000, 0o777, 0o777), (0o077, 0o700, 0o700), (0o277, 0o700, 0o700)],
)
def test_modes_by_other_umasks(umask: int, file_mode: int, folder_mode: int) -> None:
    """The owner's bits stay whatever the umask; whoever may read may execute, but for those whom it keeps from it."""
    assert taken_mode(ABSENT, ABSENT, file("r", 0o777), umask) == file_mode
    assert taken_mode(ABSENT, ABSENT, replace(DIRECTORY, mode=0o777), umask) == folder_mode
    before = file("b", 0o644)
    assert taken_mode(before, before, file("r", 0o755), umask) == 0o644 | (0o111 & ~(umask & 0o077))


def test_the_mode_of_a_merged_file() -> None:
    """The side that changed the executable bit decides."""
    assert merged_mode(BASE, file("l", 0o755), THERE, 0o022) == 0o755
    assert merged_mode(ABSENT, HERE, file("r", 0o755), 0o022) == 0o644
    assert merged_mode(BASE, HERE, file("r", 0o755), 0o022) == 0o755
    assert merged_mode(file("b", 0o755), file("l", 0o755), THERE, 0o022) == 0o644


def test_the_next_base() -> None:
    """It is the sandbox's version; a link has the mode that a scan gives it, and what is gone has none."""
    taken = PlannedPath("p", TAKE, BASE, BASE, THERE)
    assert next_base(taken, 0o600) == Entry(Kind.FILE, 0o600, 0, 1, digest=THERE.digest)
    assert next_base(replace(taken, there=replace(THERE, mtime_s=7)), 0o600) == Entry(
        Kind.FILE, 0o600, 7, 1, digest=THERE.digest
    )
    assert next_base(replace(taken, there=replace(LINK, size_bytes=9)), 0) == Entry(Kind.SYMLINK, 0o777, 0, target="a")
    assert next_base(replace(taken, there=ABSENT), 0) is None


@pytest.mark.parametrize(
    ("missing", "looked_at", "emptied"),
    [(0, 0, False), (0, 200, False), (1, 1, True), (1, 2, False), (180, 200, False), (181, 200, True), (2, 2, True)],
)
def test_an_emptied_sandbox(missing: int, looked_at: int, emptied: bool) -> None:
    """A sandbox with less than a tenth left of what was put there was emptied; fewer losses are the agent's."""
    assert was_emptied(missing, looked_at) is emptied


# -- what is removed, what is left over, and what is in the way


KINDS = {
    "f": Entry(Kind.FILE, 0o644, 1, 3, digest=b"one"),
    "o": Entry(Kind.FILE, 0o644, 2, 5, digest=b"other"),
    "d": Entry(Kind.DIRECTORY, 0o755),
    "l": Entry(Kind.SYMLINK, target="f"),
}


def manifest(text: str) -> Manifest:
    """`a:d a/b:f` has a directory and a file in it."""
    return Manifest({path: KINDS[kind] for path, _, kind in (word.partition(":") for word in text.split())})


@pytest.mark.parametrize(
    ("held", "wanted", "unread", "leftovers", "deleted"),
    [
        ("a:f b:f", "a:o", "", "", "b:f"),
        ("d:d d/a:f d/e:d d/e/b:f", "", "", "", "d/e/b:f d/e:d d/a:f d:d"),
        ("a:f", "a:d a/b:f", "", "", "a:f"),
        ("a:f d:d d/b:f", "", "d", "", "a:f"),
        ("a:f", "", "", "b:f", "b:f a:f"),
        ("a:f", "a:f b:o c:d", "", "b:f c:f", "c:f"),
        # Of a repository a file may go, or all with the folder around it; what is in it does not go with it alone.
        (".git:d .git/a:f .git/b:f", ".git:d .git/a:f", "", "", ".git/b:f"),
        (".git:d .git/a:f f:f", "f:f", "", "", ".git:d"),
        ("d:d d/.git:d d/.git/a:f", "d:d", "", "", "d/.git:d"),
        ("d:d d/.git:d d/.git/a:f", "", "", "", "d/.git/a:f d/.git:d d:d"),
        ("", "d:d", "", "d/.git/a:f", ""),
        ("d:d d/.git:d d/.git/m:d d/.git/m/.git:d d/.git/m/.git/a:f", "d:d", "", "", "d/.git:d"),
    ],
)
def test_what_is_to_be_removed(held: str, wanted: str, unread: str, leftovers: str, deleted: str) -> None:
    """The content of a directory goes before it."""
    found = paths_to_delete([manifest(held), manifest(leftovers)], manifest(wanted), unread.split())
    expected = [(path, [KINDS[kind]]) for path, _, kind in (word.partition(":") for word in deleted.split())]
    assert [*found.items()] == expected


def test_each_version_that_may_be_there_is_named() -> None:
    """Of the base, and of what was sent and not answered."""
    found = paths_to_delete([manifest("a:f"), manifest("a:o")], Manifest(), ())
    assert found == {"a": [KINDS["f"], KINDS["o"]]}


@pytest.mark.parametrize(
    ("wanted", "gone", "failed", "left"),
    [
        ("a:f d:d d/b:f x:f", "", "", ""),
        ("", "", "", "a d d/b x"),
        ("", "a d/b", "d", "d x"),
        ("a:d", "", "a y", "a d d/b x"),
        ("a:d", "", "", "d d/b x"),
    ],
)
def test_what_is_left_over(wanted: str, gone: str, failed: str, left: str) -> None:
    """What was neither removed nor is wanted, and another kind of what is wanted that could not be removed."""
    found = left_over(manifest("a:f d:d d/b:f x:f"), manifest(wanted), gone.split(), failed.split())
    assert list(found) == left.split()


@pytest.mark.parametrize(
    ("wanted", "in_the_way"),
    [("", ""), ("a:f", "a"), ("d:d", "d"), ("d:f", "d d/b"), ("d:d d/b:f", "d d/b"), ("d/b:f", "d/b")],
)
def test_what_has_a_wanted_place(wanted: str, in_the_way: str) -> None:
    """Also what is below a path that is to be no directory."""
    found = {path: [entry] for path, entry in manifest("a:f d:d d/b:f").items()}
    assert set(obstructing(found, manifest(wanted))) == set(in_the_way.split())


@pytest.mark.parametrize(
    ("kind", "wanted", "is_obstructed"),
    [
        (Kind.SYMLINK, "a:f", False),
        (Kind.FILE, "a:d", True),
        (Kind.DIRECTORY, "a:l", True),
        (Kind.DIRECTORY, "a:d", False),
        (Kind.DIRECTORY, "b:f", False),
    ],
)
def test_a_directory_is_replaced_by_nothing_and_replaces_nothing(
    kind: Kind, wanted: str, *, is_obstructed: bool
) -> None:
    """Files and links replace one another."""
    assert obstructed_by({"a": [kind]}, manifest(wanted)) == ({"a": kind} if is_obstructed else {})
