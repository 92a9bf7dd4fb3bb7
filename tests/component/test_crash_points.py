"""Each step of a sync is once the last one of its process, by `kill -9` or with the power gone: the next one mends it.

After each death the workspace stays, is taken back to what it was before, or goes on changing; then a fresh process
syncs once, and the sandbox holds the workspace, the records say so, and nothing is left over. Every step means each
call that makes, writes, flushes, moves or removes a file, and each byte to and from the server, cut in half too.

All deaths with all that may follow take some minutes: `python -m pytest -m long tests/component/test_crash_points.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from tests.component.crash_machine import Cut, Disk, Machine, machine

RECORDS = {
    "initialized",
    "uploaded",
    "unsure",
    "perhaps-there",
    "started",
    "lease",
    "uplink",
    "workspace",
    "lock",
    "status.json",
    "history.jsonl",
    "lingering",
    "small-archives",
}
# What stands only from before something is asked of the sandbox until what came of it is known.
PASSING = {"uploaded", "unsure", "perhaps-there", "started"}
# More than a sync has; the story ends at the first number that kills nobody.
MOST_STEPS = 200


class Story:
    """A workspace that changes with each chapter, and what it was before."""

    def __init__(self, on: Machine) -> None:
        self.machine = on
        self.before = on.workspace.parent / "before"
        self.chapter = 0
        self.archive_bytes = 0
        (on.workspace / "d").mkdir(exist_ok=True)
        self.change()

    def keep(self) -> None:
        """Remember the workspace as it is."""
        shutil.rmtree(self.before, ignore_errors=True)
        shutil.copytree(self.machine.workspace, self.before, symlinks=True)

    def change(self) -> None:
        """Every kind of change, and no size tells of them."""
        self.chapter += 1
        work = self.machine.workspace
        (work / "a").write_text(f"chapter {self.chapter:06}")
        (work / "d/b").write_text(f"{self.chapter:04}" * 5000)
        (work / "d/b").chmod(0o755 if self.chapter % 2 else 0o644)
        (work / "l").unlink(missing_ok=True)
        (work / "l").symlink_to("ab"[self.chapter % 2])
        (work / f"new{self.chapter % 3}").write_text("new")

    def take_back(self) -> None:
        """The workspace is what it was when it was kept."""
        work = self.machine.workspace
        shutil.rmtree(work)
        shutil.copytree(self.before, work, symlinks=True)

    def stay(self) -> None:
        """Nothing happens."""

    def check(self, *, powerless: bool = False) -> None:
        """One sync by a fresh process mends everything, and the one after it has nothing to do."""
        self.mend(powerless=powerless)
        asked = len(self.machine.emulator.request_log.ops())
        again = self.machine.sync()
        assert again.word == "unchanged"
        assert len(self.machine.emulator.request_log.ops()) == asked

    def mend(self, *, powerless: bool) -> None:
        """One sync by a fresh process, after which the sandbox holds the workspace."""
        ended = self.machine.sync()
        assert ended.word in ("initialized", "unchanged"), ended.said
        assert tree(self.machine.workspace).items() <= tree(self.machine.sandbox.workspace).items()
        self.check_folders(sent=ended.word == "initialized", powerless=powerless)

    def check_folders(self, *, sent: bool, powerless: bool) -> None:
        """Nothing is left over, and the disk's notes are right."""
        state, spool = Path(self.machine.folders.state), Path(self.machine.folders.spool)
        names = {path.name for path in state.iterdir()}
        damaged = {name for name in names if name.endswith(".damaged")}
        drafts = {name for name in names if name.endswith(".new")}
        assert names - damaged - drafts <= RECORDS
        assert not damaged or powerless, "a mere kill damages nothing"
        if sent:  # or else what had been done was not undone: an archive in the bucket, a draft for the next to replace
            assert not drafts or powerless
            assert not PASSING & names
        chunks = [path for path in spool.rglob("*") if path.is_file()]
        assert {path.suffix for path in chunks} <= {".chunk"}
        archives = (self.machine.emulator.data_dir / "bucket").rglob("workspace.tar.gz/*")
        last = max(archives, key=lambda path: path.name)
        self.archive_bytes = max(self.archive_bytes, last.stat().st_size)
        if sent or not powerless:  # chunks that a power cut brought back go with the next packing
            assert sum(path.stat().st_size for path in chunks) <= 2 * self.archive_bytes
        assert all(path.stat().st_mode & 0o077 == 0 for path in (state, spool, *state.iterdir(), *chunks))
        assert {path: self.machine.disk.contents[file] for path, file in self.machine.disk.names.items()} == (
            self.machine.written()
        )


class Pruned(Story):
    """A workspace in which each chapter deletes, too, and a sandbox that follows in that as it is told to."""

    def __init__(self, on: Machine, deletions: str, archive: str) -> None:
        on.set("sandbox", "deletions", deletions)
        on.set("sync", "archive", archive)
        self.exactly = deletions != "keep"
        super().__init__(on)

    def change(self) -> None:
        """Also a file that goes, one that comes back as it was, a folder that becomes a file and the reverse."""
        super().change()
        work, odd = self.machine.workspace, self.chapter % 2
        for path in work.glob("gone*"):
            path.unlink()
        (work / f"gone{self.chapter % 3}").write_text("comes back as it was")
        if (work / "kind").is_dir():
            shutil.rmtree(work / "kind")
        else:
            (work / "kind").unlink(missing_ok=True)
        if odd:
            (work / "kind").write_text("a file")
        else:
            (work / "kind/deep").mkdir(parents=True)
            (work / "kind/deep/f").write_text("in a folder")

    def mend(self, *, powerless: bool) -> None:
        super().mend(powerless=powerless)
        self.machine.sandbox.wait()
        if self.exactly:
            assert tree(self.machine.workspace) == tree(self.machine.sandbox.workspace)


def tree(top: Path) -> dict[str, object]:
    """Path to content and the one bit that a sandbox keeps, or to a link's target."""
    found: dict[str, object] = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.is_dir() or (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """A machine, and a workspace that is nowhere else yet. Its disk is memory where possible: there a flush is free."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    with TemporaryDirectory(dir=memory) as folder, machine(Path(folder)) as on:
        yield Story(on)


Then = Callable[[Story], None]
AFTERWARDS: list[Then] = [Story.take_back, Story.change, Story.stay]
DEATHS = pytest.mark.parametrize("torn", [False, True], ids=["before", "half-way"])


def _deaths(
    story: Story,
    afterwards: list[Then],
    cuts: Sequence[Cut | None] = (),
    *,
    torn: bool,
    anew: bool = False,
    first: int = 1,
    stride: int = 1,
) -> int:
    """Dies once at each `stride`-th step of a sync, or half-way through those that have a half; at which it ended.

    `anew`: each time with nothing recorded yet.
    """
    then, cut, chance = cycle(afterwards), cycle(cuts or [None]), Random(5)
    powerless = False
    story.machine.sync()
    for step in range(first, MOST_STEPS, stride):
        if anew:
            story.machine.forget_all()
        story.keep()
        story.change()
        if story.machine.sync(step, torn=torn).word != "killed":
            return step - 1
        if (how := next(cut)) is not None:
            story.machine.cut_power(how, chance)
            powerless = True
        next(then)(story)
        story.check(powerless=powerless)
    raise AssertionError("a sync without end")


def test_the_steps_are_all_there(story: Story) -> None:
    """The wire is before every step that matters; a way to write that goes around it would show here."""
    steps = story.machine.sync().steps
    for name in ("lease", "uploaded", "initialized"):
        at = steps.index(f"move {name}")
        assert steps[at - 3 : at] == [f"open {name}.new", "write", "flush"]
        assert steps[at + 1] == "flush folder"
    uncertain, initialized = steps.index("open unsure"), steps.index("move initialized")
    assert steps[uncertain + 1] == "flush folder"
    assert {"send", "recv"} <= set(steps[uncertain:initialized])
    assert [step for step in steps[uncertain + 2 : initialized] if step not in ("connect", "send", "recv")] == [
        "open initialized.new",
        "write",
        "flush",
    ]
    assert {"connect", "send", "recv", "open 1.loose", "make folder chunks", "move status.json"} <= set(steps)
    story.check_folders(sent=True, powerless=False)


@DEATHS
def test_killed_and_taken_back(story: Story, *, torn: bool) -> None:
    """Workspace and record agree again: where the sandbox might not, all is sent once more."""
    assert _deaths(story, [Story.take_back], torn=torn) > (8 if torn else 30)


@DEATHS
def test_killed(story: Story, *, torn: bool) -> None:
    """What was under way, or what came since, is in the sandbox after one sync."""
    assert _deaths(story, [Story.stay, Story.change], torn=torn) > (8 if torn else 30)


def test_killed_in_the_first_sync(story: Story) -> None:
    """Also where nothing was there before, neither folders nor records."""
    assert _deaths(story, AFTERWARDS, torn=False, anew=True) > 40


@DEATHS
def test_without_power(story: Story, *, torn: bool) -> None:
    """Nor does it matter what the disk had not written yet: names, contents, some of either."""
    cuts = [*Cut, Cut.ANY]
    assert _deaths(story, AFTERWARDS, cuts, torn=torn) > (8 if torn else 30)


@pytest.mark.parametrize(
    ("cut", "before_it"),
    [
        (None, ()),
        (Cut.NAMES, ("remove uploaded",)),
        pytest.param(None, ("remove uploaded",), marks=pytest.mark.long),
        pytest.param(Cut.NAMES, (), marks=pytest.mark.long),
        pytest.param(Cut.ANY, (), marks=pytest.mark.long),
        pytest.param(Cut.ANY, ("remove uploaded",), marks=pytest.mark.long),
    ],
)
def test_what_lies_in_the_bucket(story: Story, cut: Cut | None, before_it: tuple[str, ...]) -> None:
    """One text was uploaded, a second one took its place there, and it is the first again that is to arrive.

    Each process dies: the first before its initialize, maybe one just after it forgot that upload, the last anywhere
    on its own way there.
    """
    story.machine.sync()
    for step in range(1, MOST_STEPS):
        story.change()
        assert story.machine.sync(1, after="open unsure").word == "killed"
        story.keep()
        story.change()
        for name in before_it:
            assert story.machine.sync(2, after=name).steps[-2] == name
        ended = story.machine.sync(step)
        if cut is not None:
            story.machine.cut_power(cut, Random(step))
        story.take_back()
        story.mend(powerless=cut is not None)
        if "open unsure" in ended.steps:
            break
    assert step > 15


def _wander(story: Story, chance: Random, moves: int) -> None:
    """Deaths in the mending of deaths, with and without power, while the workspace goes to and fro."""
    powerless = False
    story.machine.sync()
    for _ in range(moves):
        if chance.random() < 0.5:
            story.keep()
        chance.choice((story.change, story.take_back, story.stay) if story.before.exists() else (story.change,))()
        story.machine.sync(chance.choice((0, chance.randint(1, 60))), torn=chance.random() < 0.3)
        if chance.random() < 0.3:
            story.machine.cut_power(chance.choice(list(Cut)), chance)
            powerless = True
        if chance.random() < 0.2:
            story.check(powerless=powerless)
    story.check(powerless=powerless)


@pytest.mark.parametrize("seed", range(4))
def test_deaths_in_a_row(story: Story, seed: int) -> None:
    """Nothing of it adds up to something that a fresh process cannot mend."""
    _wander(story, Random(seed), 12)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(100, 130))
def test_many_deaths_in_a_row(story: Story, seed: int) -> None:
    """The same for longer, and often: `-m long`, some minutes."""
    _wander(story, Random(seed), 60)


@pytest.mark.long
@pytest.mark.timeout(600)
@DEATHS
@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("cut", [*Cut, None])
@pytest.mark.parametrize("anew", [False, True], ids=["again", "first"])
def test_every_death_with_all_that_may_follow(
    story: Story, then: Then, cut: Cut | None, *, torn: bool, anew: bool
) -> None:
    """Each step, each fate of the disk, each afterwards: `-m long`, some minutes."""
    _deaths(story, [then], [cut], torn=torn, anew=anew)


MODES = pytest.mark.parametrize(
    ("deletions", "archive"),
    [("keep", "changes"), ("mirror", "full"), ("mirror", "changes"), ("reset", "full"), ("reset", "changes")],
)


@MODES
@DEATHS
def test_every_so_often_by_mode(story: Story, deletions: str, archive: str, *, torn: bool) -> None:
    """With deletions that are made there, and archives of what changed: which steps, changes with what a sync does."""
    pruned = Pruned(story.machine, deletions, archive)
    assert _deaths(pruned, AFTERWARDS, [None, *Cut], torn=torn, first=3, stride=4 if torn else 15) > (5 if torn else 30)


class Replaced(Story):
    """A workspace that changes in part, small archives, and a sandbox in which each archive replaces everything."""

    def __init__(self, on: Machine) -> None:
        on.set("sync", "archive", "changes")
        on.emulator.faults.script("initialize: replace always")
        (on.workspace / "kept").mkdir()
        for number in range(5):
            (on.workspace / f"kept/{number}").write_text(f"never changed {number}")
        super().__init__(on)


@DEATHS
@pytest.mark.parametrize(
    ("cut", "stride"),
    [
        (None, 2),
        pytest.param(None, 1, marks=pytest.mark.long),
        pytest.param(Cut.NAMES, 1, marks=pytest.mark.long),
        pytest.param(Cut.ANY, 1, marks=pytest.mark.long),
    ],
)
def test_killed_before_a_small_archive_is_proved(story: Story, cut: Cut | None, stride: int, *, torn: bool) -> None:
    """The first small archive took away what it did not hold: the sandbox counts as unsure until the proof is made."""
    replaced, on = Replaced(story.machine), story.machine
    then, chance = cycle(AFTERWARDS), Random(7)
    for step in range(1, MOST_STEPS, stride):
        on.forget_all()
        assert on.sync().word == "initialized"
        replaced.keep()
        replaced.change()
        ended = on.sync(step, after="open unsure", torn=torn)
        if ended.word != "killed":
            break
        if cut is not None:
            on.cut_power(cut, chance)
        next(then)(replaced)
        replaced.check(powerless=cut is not None)
    assert on.emulator.request_log.count("dump") > 4
    assert {"open small-archives.new", "open initialized.new"} <= set(ended.steps)
    assert step > (8 if torn else 40)
    replaced.check(powerless=cut is not None)


@pytest.mark.parametrize(
    ("stride", "cuts"),
    [
        (13, [None, Cut.NAMES, None, Cut.ANY]),
        pytest.param(1, [None], marks=pytest.mark.long),
        pytest.param(1, [*Cut], marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(600)
def test_killed_on_the_way_to_the_next_sandbox(story: Story, stride: int, cuts: list[Cut | None]) -> None:
    """The one that was acquired has ended: whoever dies in the move, the next process makes it, with everything."""
    on = story.machine
    on.acquire()
    cut, chance = cycle(cuts), Random(9)
    for step in range(2, MOST_STEPS, stride):
        on.forget_all()  # also how many were acquired, or it would wait for ten minutes
        assert on.sync().word == "initialized"
        first = _filled(on)
        for sandbox in on.emulator.sandboxes():
            sandbox.record.expires_at_s = 0.0
        story.change()
        ended = on.sync(step)
        if (how := next(cut)) is not None:
            on.cut_power(how, chance)
        assert on.sync().word in ("initialized", "unchanged")
        assert on.sync().word == "unchanged"
        second = _filled(on)
        assert len(second) == 1
        assert second.keys().isdisjoint(first)
        assert second.popitem()[1].items() >= tree(on.workspace).items()
        if ended.word != "killed":
            break
    assert step > 40


def _filled(on: Machine) -> dict[str, dict[str, object]]:
    """What is in those that anything is in, by id."""
    return {box.id: found for box in on.emulator.sandboxes() if (found := tree(box.workspace))}


@pytest.mark.long
@pytest.mark.timeout(900)
@MODES
@DEATHS
@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("cut", [*Cut, None])
def test_every_death_by_mode(
    story: Story, deletions: str, archive: str, then: Then, cut: Cut | None, *, torn: bool
) -> None:
    """Each step, each fate of the disk, each afterwards, in each mode: `-m long`, many minutes."""
    _deaths(Pruned(story.machine, deletions, archive), [then], [cut], torn=torn)


def test_the_disk_forgets() -> None:
    """The model of a power cut: what was flushed stays, names and contents apart; the rest has its fate."""
    disk = Disk()
    events = [("open", "/s/a.new", 1, True, False), ("write", 1, b"old"), ("flush", 1), ("move", "/s/a.new", "/s/a")]
    disk.play([*events, ("flush-folder", "/s/")])
    disk.play([("open", "/s/a.new", 1, True, False), ("write", 1, b"new!"), ("move", "/s/a.new", "/s/a")])
    disk.play([("open", "/s/b", 1, True, False), ("flush-folder", "/t/")])
    assert disk.after(Cut.NAMES, Random(0)) == {"/s/a": b"old"}
    assert disk.after(Cut.CONTENTS, Random(0)) == {"/s/a": b"", "/s/b": b""}
    assert disk.after(Cut.ZEROS, Random(0)) == {"/s/a": bytes(4), "/s/b": b""}
    outcomes = {tuple(sorted(disk.after(Cut.ANY, Random(seed)).items())) for seed in range(99)}
    assert len(outcomes) >= 8
