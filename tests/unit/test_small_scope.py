"""All small worlds: nothing is lost in any, and it is quiet after two rounds, wherever the process died.

A world is what was sent, what a person and the agent made of it since, and the settings. It has a path `p`, what is
in it, and `q`, which the person alone has changed. A path is nothing, a file or a directory, and in the sandbox a link
too; of each kind there are the version that was sent, that of the other side, and one of its own. The process dies
once, after each step that writes, and ordinary syncs go on from there: after nothing else, a revert, or one more edit,
in turn. An archive that the process had asked for may be extracted late, and a removal may be made late. What the agent
does beside an upload is as what it did before: the look ends after it.

Two classes stand for all: what is a link here, or was one, is decided upon as a file is; and what stays as it was
deleted here is tried with `save`. `-m long` takes all kinds, all settings, and all three ways to go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import permutations, product
from typing import Any

import pytest
from msgspec import Struct, field
from msgspec.structs import replace

from syncd.archive.snapshotter import SyncMode
from syncd.core.choices import AgentChanges, Deletions
from syncd.merge import home
from syncd.model import reconcile
from syncd.model.entry import ABSENT, ALL_BITS, Entry, Kind, same, with_copy
from syncd.model.manifest import Manifest, is_within
from syncd.model.reconcile import Changed, Forced, PathOutcome, Policy
from syncd.sandbox.deletions import Removals
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sandbox.saved_versions import VersionSaver
from syncd.sync.sync_plan import Verdict
from syncd.sync.sync_round import SyncRound
from tests.unit import small_scope
from tests.unit.small_scope import DIRECTORY, Process, Tree, World, content, file, holds_any, image_of, link

SAVE, HOLD, OVERWRITE = AgentChanges
KEEP, MIRROR = Deletions
FORCE = Forced.FORCE
Kinds = Sequence[Callable[[str], Entry]]
Settings = tuple[Policy, Deletions]
FEW = [(SAVE, MIRROR), (HOLD, MIRROR), (OVERWRITE, MIRROR), (FORCE, MIRROR), (SAVE, KEEP)]
ALL = [*product((SAVE, HOLD, OVERWRITE, FORCE), Deletions)]
MERGED = file("of ours and theirs")
LONG = pytest.mark.long


def trees(tops: Iterable[Entry], inner: Iterable[Entry]) -> Iterator[Tree]:
    """Yield the trees of `p` and `p/c`, each once."""
    for top in dict.fromkeys(tops):
        for below in dict.fromkeys(inner) if top.is_directory else [ABSENT]:
            yield {path: entry for path, entry in (("p", top), ("p/c", below)) if entry.kind is not Kind.ABSENT}


def sides(kinds: Kinds) -> Iterator[tuple[Tree, Tree, Tree]]:
    """Yield what was sent, what is here and what is there; of these kinds here, beside nothing and directories."""
    for sent in trees([ABSENT, DIRECTORY, *(kind("sent") for kind in kinds)], [ABSENT, file("sent")]):
        top, below = (sent.get(path, ABSENT) for path in ("p", "p/c"))
        for here in trees([top, ABSENT, DIRECTORY, *(kind("ours") for kind in kinds)], [below, ABSENT, file("ours")]):
            tops = [top, here.get("p", ABSENT), ABSENT, DIRECTORY, file("theirs"), link("theirs")]
            for there in trees(tops, [below, here.get("p/c", ABSENT), ABSENT, file("theirs")]):
                yield sent, here, there


def is_theirs(entry: Entry | None) -> bool:
    return entry in (file("theirs"), link("theirs"))


class Story(Struct):
    """What may become of one world. `sent`, `here` and `there` are its sides at first."""

    sent: Tree
    here: Tree
    there: Tree
    policy: Policy
    deletions: Deletions
    q: str = "q"
    seen: set[Any] = field(default_factory=set)
    quiet: set[Any] = field(default_factory=set)

    def process(self, world: World) -> Process:
        return Process(world, self.policy, self.deletions, self.destroyed, self.replaced)

    def starts(self) -> Iterator[World]:
        """Yield the world, and where nothing was sent as `p`, one in which nothing is known of what is there."""
        here, q = {**self.here, self.q: file("ours")}, {self.q: file("sent")}
        yield World(here, {**self.there, **q}, image_of({**self.sent, **q}))
        if not self.sent:
            yield World(here, self.there, image_of(None))

    def sync(self, ways: int = 1) -> None:
        """Sync, and die at each step; go on from there in so many of the three ways."""
        for number, world in enumerate(death for start in self.starts() for death in self.settled(start)):
            after = [world.here, {**self.sent, self.q: file("ours")}, {"p": file("edit"), self.q: file("ours")}]
            for way in range(ways):
                self.settled(replace(world, here=after[(number + way) % 3]))

    def apply(self, *, deletions: bool = True) -> None:
        """Bring home what is there, and die at each step; syncs go on from there."""
        process = self.process(next(self.starts()))
        process.apply(deletions=deletions)
        base = process.sandbox.state.content.base or {}
        for path, there in process.there.items():
            here = process.here.get(path, ABSENT)
            is_home = same(here, there) or here == MERGED
            assert not is_home or same(base.get(path, ABSENT), there), self.told(process, f"{path} is no base")
            both = not is_home and here.kind is not Kind.ABSENT and self.changed_here(process, path)
            is_conflict = both and (deletions or not here.is_directory)  # else it asks for them
            is_saved = not is_theirs(there) or (path, content(there)) in process.saved
            assert is_saved or not is_conflict, self.told(process, f"{path} is a conflict, and not saved")
        for world in (process.world, *process.deaths):
            self.settled(world)

    def settled(self, world: World) -> list[World]:
        """Sync until nothing is left to do, check what is there then, and return the worlds at which it may die."""
        if world.key in self.seen:
            return []
        self.seen.add(world.key)
        process = self.process(world)
        process.sync(SyncMode.FORCED if self.policy is FORCE else SyncMode.CHANGED)
        deaths, end = process.deaths, (process.world.key, world.late_archive != b"")
        if end not in self.quiet:
            self.quiet.add(end)
            process.sync()
            before = process.effects
            is_quiet = process.sync().sync is None and process.effects == before
            assert is_quiet, self.told(process, "it is not quiet")
            if world.late_archive:  # what it put back in a taken place is found by the next sync that sends something
                process.here[self.q] = file("edit")
                process.sync()
            for path in {*process.here, *process.there}:
                assert self.may_be(process, path), self.told(process, f"{path} is another one there")
        return deaths

    def told(self, process: Process, what: str) -> str:
        return f"{what}: {process.here} here, {process.there} there, in {self}"

    # -- the contract, told once more

    def changed_here(self, process: Process, path: str, since: Tree | None = None) -> bool:
        """True if a person has changed the path, or what is in it now, since that was sent."""
        base = self.sent if since is None else since
        paths = [path, *(each for each in process.here if is_within(each, {path}))]
        return any(not same(process.here.get(p, ABSENT), base.get(p, ABSENT), ALL_BITS) for p in paths)

    def destroyed(self, process: Process, path: str, old: Entry) -> None:
        """Check that something else may take the place of this in the sandbox."""
        if not is_theirs(old) or self.policy is OVERWRITE or process.here.get(path) in (old, MERGED):
            return
        # What a late removal takes away was changed here when it was started. What was sent meanwhile counts, too.
        may_go = self.policy is FORCE or process.is_late
        may_go = may_go or self.changed_here(process, path) or self.changed_here(process, path, process.base)
        assert may_go, self.told(process, f"{path} was to stay there")
        assert (path, content(old)) in process.saved, self.told(process, f"{path} was not saved")

    def replaced(self, process: Process, path: str, old: Entry, new: Entry) -> None:
        """Check that an `apply` may put something else in the place of this in the workspace."""
        may_go = old.kind in (Kind.ABSENT, Kind.DIRECTORY) or new == MERGED or same(old, self.sent.get(path, ABSENT))
        assert may_go, self.told(process, f"{path} was to stay here")

    def may_be(self, process: Process, path: str) -> bool:
        """True if the contract lets the path be as it is there, once it is quiet."""
        here, there = process.here.get(path, ABSENT), process.there.get(path, ABSENT)
        above = path.rpartition("/")[0]
        if same(here, there) or (above and not process.there.get(above, ABSENT).is_directory):
            return True
        if self.policy is not FORCE and not self.changed_here(process, path):
            return True  # only the agent did
        is_folder, is_gone = there.is_directory, here.kind is Kind.ABSENT
        is_new = is_folder and (not self.sent.get(path, ABSENT).is_directory or holds_any(process.there, path))
        is_agents = same(there, self.there.get(path, ABSENT)) and not same(there, self.sent.get(path, ABSENT))
        if not is_new and not is_agents:
            return is_gone and self.deletions is KEEP
        if is_folder or self.policy is HOLD:
            return True
        return is_gone and (self.policy is SAVE or path not in self.sent or self.deletions is KEEP)


def stories(settings: Iterable[Settings], kinds: Kinds) -> Iterator[Story]:
    for (sent, here, there), (policy, deletions) in product(sides(kinds), settings):
        if deletions is MIRROR or any(here.get(path, ABSENT).kind is not entry.kind for path, entry in sent.items()):
            yield Story(sent, here, there, policy, deletions)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "syncd")


@pytest.mark.parametrize(
    ("settings", "kinds", "ways"),
    [
        *((each, [file], 1) for each in FEW),
        *(pytest.param(each, [file, link], 3, marks=[LONG, pytest.mark.timeout(600)]) for each in ALL),
    ],
)
def test_a_sync_that_dies_loses_nothing(settings: Settings, kinds: Kinds, ways: int) -> None:
    """What the agent made stays, is saved, or is as here; and both sides end alike but for what the contract names."""
    for story in stories([settings], kinds):
        story.sync(ways)


@pytest.mark.parametrize(
    ("policy", "deletions"),
    [(SAVE, True), *(pytest.param(*each, marks=LONG) for each in product((SAVE, HOLD), (True, False)))],
)
def test_an_apply_that_dies_loses_nothing(merges: None, policy: Policy, deletions: bool) -> None:
    """What a person has changed stays here, or is merged; and the syncs that follow lose nothing of either side."""
    for story in stories([(policy, MIRROR)], [file]):
        story.apply(deletions=deletions)


@pytest.mark.parametrize("policy", [SAVE, HOLD])
def test_the_order_does_not_matter(merges: None, policy: Policy) -> None:
    """A sync or an `apply` comes first, whatever the names are; what `save` overwrites no `apply` can merge later."""
    for story in stories([(policy, MIRROR)], [file]):
        ends: list[tuple[Tree, Tree]] = []
        for renamed, (first, then) in product((story, replace(story, q="a")), permutations(("sync", "apply"))):
            process = renamed.process(next(renamed.starts()))
            acts = {"sync": process.sync, "apply": partial(process.apply, deletions=False)}
            for name in (first, then, "sync", "apply", "sync"):
                acts[name]()
            paths = {path for path in {*process.here, *process.there} if path != renamed.q}
            ends.append(tuple({p: side.get(p, ABSENT) for p in paths} for side in (process.here, process.there)))
        is_merged = policy is SAVE and any(MERGED in here.values() for here, _ in ends)
        assert is_merged or all(end == ends[0] for end in ends), f"{ends}, of {story}"


@pytest.fixture
def merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge without git, and never with a conflict."""
    monkeypatch.setattr(home, "_merged", lambda *_: with_copy(MERGED, "merged"))


# -- the check itself


def _overwrites(was: Any, changed: Changed, *args: Any) -> PathOutcome:
    return PathOutcome.WRITE if changed is Changed.THERE else was(changed, *args)


def _forgets(content: SandboxContent, manifest: Manifest, *_: object, was: Any = SandboxContent.after_arrival) -> Any:
    return was(content, manifest, {path for held in content.versions for path in held}, ())


def _force(story: Story) -> None:
    if story.policy is FORCE:
        story.sync()


def _takes(was: Any, *args: Any) -> tuple[PathOutcome, str]:
    outcome, reason = was(*args)
    return PathOutcome.TAKE if outcome is PathOutcome.CONFLICT else outcome, reason


_SYNC_FAULTS: list[tuple[Any, str, Callable[..., Any]]] = [
    (VersionSaver, "save", lambda *_: frozenset()),
    (SandboxState, "mark_uncertain", lambda *_: None),
    (SandboxContent, "with_sent", lambda content, _: replace(content, uncertain=True)),
    (Removals, "settle_pending", lambda *_: None),
    (SyncRound, "prepare", lambda _: Verdict.INITIALIZE),
    (reconcile, "_sync_outcome", partial(_overwrites, reconcile._sync_outcome)),
    (reconcile, "_is_held", lambda changed, _: changed is not Changed.HERE),
]
_APPLY_FAULTS: list[tuple[Any, str, Callable[..., Any]]] = [
    (SandboxState, "record_taken", lambda *_: None),
    (small_scope, "save_theirs", lambda *_: None),
    (reconcile, "_home_outcome", partial(_takes, reconcile._home_outcome)),
    (reconcile, "_is_emptied", lambda *_: True),
]


@pytest.mark.parametrize(
    ("owner", "name", "fault", "try_story"),
    [
        *((*each, Story.sync) for each in _SYNC_FAULTS),
        (SandboxContent, "after_arrival", _forgets, _force),
        *((*each, Story.apply) for each in _APPLY_FAULTS),
    ],
)
def test_a_fault_is_noticed(
    monkeypatch: pytest.MonkeyPatch, merges: None, owner: Any, name: str, fault: Any, try_story: Callable[[Story], None]
) -> None:
    """Whatever part of a sync or an `apply` is left out or broken, some world shows it."""
    monkeypatch.setattr(owner, name, fault)
    richest_first = [*stories(FEW, [file])][::-1]
    with pytest.raises(AssertionError):
        any(map(try_story, richest_first))
