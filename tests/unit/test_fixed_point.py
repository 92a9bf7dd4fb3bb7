"""Syncs and applies of three trees, in any order and batches, end at one fixed point, whatever the names are.

They are planned by the real rules, and what they do is pretended: to values. What is promised: it is quiet after a few
rounds. With `hold` the order does not matter at all. With `save` it does not matter for a path that one side alone has
changed; of one that both have changed, a sync that comes first leaves ours, and an `apply` that comes first may merge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from syncd.core.choices import AgentChanges
from syncd.model import reconcile
from syncd.model.entry import ABSENT, ALL_BITS, EXECUTABLE, Entry, Kind, SeenEntry, same
from syncd.model.manifest import directories_above, is_within
from syncd.model.reconcile import Changed, Home, PathOutcome, Policy, Sides, plan_home, plan_sync, who_changed, withheld

Tree = dict[str, SeenEntry]
PATHS, STORIES, ORDERS, ROUNDS = 20, 40, 3, 3
LETTERS = "abcdef"
DIRECTORY = SeenEntry(Kind.DIRECTORY, 0o755)
SAVE, HOLD = AgentChanges.SAVE, AgentChanges.HOLD


def file(text: str) -> SeenEntry:
    return SeenEntry(Kind.FILE, 0o644, digest=hashlib.sha256(text.encode()).digest(), copy="/copies/0")


class World:
    """The three sides, and what syncs have saved."""

    def __init__(self, base: Tree, here: Tree, there: Tree) -> None:
        self.base, self.here, self.there = dict(base), dict(here), dict(there)
        self.saved: set[tuple[str, SeenEntry]] = set()

    @property
    def state(self) -> tuple[Tree, Tree, Tree]:
        return dict(self.base), dict(self.here), dict(self.there)

    def batch(self, tops: Iterable[str]) -> list[str]:
        """The paths that are there on any side, of these and all below."""
        return sorted(path for path in self.base | self.here | self.there if is_within(path, {*tops}))

    def _differing(self, paths: Iterable[str]) -> Tree:
        seen = {path: self.there.get(path, ABSENT) for path in paths}
        sides = (self.base, self.here)
        return {p: e for p, e in seen.items() if any(not same(e, side.get(p, ABSENT), ALL_BITS) for side in sides)}

    def sync(self, tops: Iterable[str], policy: AgentChanges) -> None:
        """Look at these paths and the folders above, save, and write what has its place there."""
        paths = self.batch(tops)
        looked = self._differing({*paths, *directories_above(paths)})
        changed_here = [p for p in self.base | self.here if not same(self.at(self.base, p), self.at(self.here, p))]
        plan = plan_sync(Sides(self.base, self.here, looked), policy, directories_above(changed_here))
        self.saved |= {*plan.there(PathOutcome.SAVE).items()}
        for planned in plan.of(PathOutcome.SAME):
            self._put(self.base, planned.path, self.here)
        writes = {planned.path for planned in plan.of(PathOutcome.WRITE, PathOutcome.SAVE)}
        writes -= withheld(writes, plan)
        for path in sorted(writes, reverse=True):  # what is in a folder goes before it
            if self.at(self.there, path).kind is not self.at(self.here, path).kind and not self._holds_any(path):
                self.there.pop(path, None)
        for path in sorted(writes):
            above = path.rpartition("/")[0]
            has_place = not above or self.at(self.there, above).is_directory
            is_free = not self._holds_any(path) or self.at(self.here, path).is_directory
            if (has_place or path not in self.here) and is_free:
                self._put(self.there, path, self.here)
                self._put(self.base, path, self.here)

    def apply(self, tops: Iterable[str], *, deletions: bool) -> None:
        """Take and merge what differs of these paths, all or nothing of each folder as the plan says."""
        home = Home(deletions, lambda path: self.at(self.here, path).target or None, partial(names_in, self.here))
        here = self._seen_here()
        plan = plan_home(Sides(self.base, here, self._differing(self.batch(tops))), home)
        for planned in reversed(plan.of(PathOutcome.DELETE, PathOutcome.TAKE, PathOutcome.SAME)):
            if self.at(self.there, planned.path).kind is not self.at(self.here, planned.path).kind:
                self.here.pop(planned.path, None)
            self._put(self.base, planned.path, self.there)
        for planned in plan.of(PathOutcome.TAKE):
            self._put(self.here, planned.path, self.there)
        for planned in plan.of(PathOutcome.MERGE):
            texts = b"".join(each.digest for each in (planned.base, planned.here, planned.there))
            if hashlib.sha256(texts).digest()[0] % 2:  # else both changed the same lines
                self.here[planned.path] = replace(file(texts.hex()), size_bytes=1)  # what is merged has a size
                self._put(self.base, planned.path, self.there)
        lost = [
            path for path in self.here if not all(self.at(self.here, p).is_directory for p in directories_above([path]))
        ]
        assert not lost, f"{lost} are in no folder"

    @staticmethod
    def at(side: Tree, path: str) -> SeenEntry:
        return side.get(path, ABSENT)

    def _seen_here(self) -> dict[str, Entry]:
        """What is here, where a path behind a link or a file is none that could be taken."""
        behind = {path: SeenEntry(Kind.OTHER) for path in self.there if self._is_behind(path)}
        return {**self.here, **behind}

    def _is_behind(self, path: str) -> bool:
        return any(not self.here.get(each, DIRECTORY).is_directory for each in directories_above([path]))

    def _holds_any(self, path: str) -> bool:
        return any(each.startswith(f"{path}/") for each in self.there)

    @staticmethod
    def _put(side: Tree, path: str, other: Tree) -> None:
        if path in other:
            side[path] = other[path]
        else:
            side.pop(path, None)


def names_in(side: Tree, folder: str) -> list[str]:
    return [path.rpartition("/")[2] for path in side if path.rpartition("/")[0] == folder]


def changed(tree: Tree, random: Random, changes: int, text: Callable[[], str]) -> Tree:
    """Return the tree after so many changes, each of which leaves it one."""
    found = dict(tree)
    for _ in range(changes):
        folders = ["", *(path for path, entry in found.items() if entry.is_directory)]
        folder, name = random.choice(folders), random.choice(LETTERS)
        path = random.choice([f"{folder}/{name}".lstrip("/"), *found])
        below = [each for each in found if each.startswith(f"{path}/")]
        entry = random.choice((file(text()), file(text()), DIRECTORY, SeenEntry(Kind.SYMLINK, target=name), ABSENT))
        if entry.kind is Kind.DIRECTORY and path in found and found[path].is_directory:
            continue
        for each in (path, *below):
            found.pop(each, None)
        if entry is not ABSENT and path.count("/") < 3:
            found[path] = entry
    return found


def drawn(seed: int) -> World:
    """Return a world of some 20 paths; both sides made some changes, a few of them the same."""
    random = Random(seed)
    base: Tree = {}
    while len(base) < PATHS:
        folder = random.choice(["", "", *(path for path, entry in base.items() if entry.is_directory)])
        kinds = (file(f"base {len(base)}"), DIRECTORY, DIRECTORY, SeenEntry(Kind.SYMLINK, target=random.choice("abc")))
        base[f"{folder}/{random.choice(LETTERS)}".lstrip("/")] = random.choice(kinds)
        base = {
            path: entry for path, entry in base.items() if all(base[p].is_directory for p in directories_above([path]))
        }
    common = changed(base, random, random.randrange(3), lambda: f"both {random.random()}")
    here, there = (
        changed(common, random, random.randrange(6), lambda side=side: f"{side} {random.random()}")  # type: ignore[misc]
        for side in ("here", "there")
    )
    return World(base, here, there)


def settle(world: World, random: Random | None, policy: AgentChanges, *, deletions: bool = False) -> World:
    """Sync and apply in random batches first, and then all, until nothing changes any more."""
    for _ in range(12 if random else 0):
        paths = sorted(world.base | world.here | world.there)
        assert random
        tops = random.choices(paths, k=min(3, len(paths)))
        if random.random() < 0.5:
            world.sync(tops, policy)
        else:
            # A path that a person names is taken by itself, and not only with its folder.
            world.apply([path.partition("/")[0] for path in tops], deletions=deletions)
    for _ in range(ROUNDS):
        before, tops = world.state, names_in(world.base | world.here | world.there, "")
        world.sync(tops, policy)
        world.apply(tops, deletions=deletions)
        if world.state == before:
            return world
    raise AssertionError("it does not end")


def differing(one: World, other: World) -> set[str]:
    return {path for a, b in zip(one.state, other.state, strict=True) for path, _ in a.items() ^ b.items()}


def ordered(seed: int) -> None:
    """Check what is promised of the order, in one world."""
    for policy, deletions in product((HOLD, SAVE), (False, True)):
        start, first = drawn(seed), settle(drawn(seed), None, policy, deletions=deletions)
        # A sync puts there what is gone there, and a person has to ask that it be deleted here: whichever comes first.
        excused = {path for path in start.base if path not in start.there} if deletions else set()
        if policy is SAVE:
            three = ((each, *(World.at(side, each) for side in start.state)) for each in start.here | start.there)
            excused |= {path for path, *sides in three if who_changed(*sides, EXECUTABLE) is Changed.BOTH}
        for order in range(ORDERS):
            other = settle(drawn(seed), Random(order), policy, deletions=deletions)
            found = differing(first, other)
            free = {path for path in found if not is_within(path, excused)} - directories_above(excused)
            assert not free, (seed, policy, deletions, order, sorted(free))
            for path, entry in start.there.items() - start.base.items():
                is_merged = other.here.get(path, ABSENT).size_bytes
                kept = {(path, other.there.get(path)), (path, other.here.get(path)), *other.saved}
                assert entry.is_directory or is_merged or (path, entry) in kept, (seed, policy, path)


@pytest.mark.parametrize("seed", range(STORIES))
def test_the_order_does_not_matter(seed: int) -> None:
    """It ends, in the same state whatever came first, but for what is said above; no version of the agent's is lost."""
    ordered(seed)


def test_names_do_not_matter() -> None:
    """With other names, what was planned in another order, the state is the same under these."""
    for seed in range(STORIES):
        letters = Random(seed).sample(LETTERS, len(LETTERS))
        other = str.maketrans(LETTERS, "".join(letters))

        def renamed(side: Tree, other: dict[int, int] = other) -> Tree:
            return {p.translate(other): replace(e, target=e.target.translate(other)) for p, e in side.items()}

        for policy, deletions in product((HOLD, SAVE), (False, True)):
            world = settle(drawn(seed), None, policy, deletions=deletions)
            again = settle(World(*map(renamed, drawn(seed).state)), None, policy, deletions=deletions)
            assert again.state == tuple(map(renamed, world.state)), (seed, policy)


def _overwrites(was: Any, changed: Changed, here: Entry, there: SeenEntry, policy: Policy) -> PathOutcome:
    return PathOutcome.WRITE if changed is Changed.THERE else was(changed, here, there, policy)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("_sync_outcome", _overwrites),
        ("_above", lambda _, *args: None),
        ("_is_emptied", lambda _, *args: True),
        ("_is_held", lambda _, changed, here: changed is not Changed.HERE),
    ],
)
def test_planted_faults(monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[..., Any]) -> None:
    """A rule that is broken is noticed."""
    monkeypatch.setattr(reconcile, name, partial(fault, getattr(reconcile, name)))
    with pytest.raises(AssertionError):
        any(ordered(seed) for seed in range(STORIES))
