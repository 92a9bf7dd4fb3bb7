"""A process is killed at each step of a sync, by `kill -9` or a power cut, and the next one recovers.

After each death the workspace stays, is restored to the version before, or changes; then a new process syncs once: the
sandbox equals the workspace, the records say so, and no files are left over. A step is each call that creates, writes,
flushes, renames or removes a file, and each byte to and from the server, also half done.

A run tries a few of the steps; `python -m pytest -m long tests/component/test_crash_points.py` all of them, with each
combination, in some minutes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from random import Random

import pytest

from syncd.core.clock import SystemClock
from syncd.sandbox.saved_versions import SavedVersions
from syncd.store.state_db import StateDb
from tests.component.crash_machine import Machine, PowerCut
from tests.fuzz.operations import tree
from tests.instants import FEW_OR_ALL, Choice, all_of, few
from tests.recorded import records
from tests.system.trees import Tree

FILES = {
    "state.db",
    "workspace",
    "lock",
    "status.json",
    "blobs",
}
# Records that exist only from before a request to the sandbox until its outcome is known.
PASSING = {"uncertain", "unanswered", "removals"}
# A transaction with the mark; what follows it can happen in the sandbox.
MARKED = "commit last uncertain"


class CrashScenario:
    """A workspace with a new version for each sync, and a copy of the version before."""

    def __init__(self, on: Machine) -> None:
        self.machine = on
        self.before = on.workspace.parent / "before"
        self.version = 0
        (on.workspace / "d").mkdir(exist_ok=True)
        self.change()

    def keep(self) -> None:
        """Copy the workspace as it is."""
        shutil.rmtree(self.before, ignore_errors=True)
        shutil.copytree(self.machine.workspace, self.before, symlinks=True)

    def change(self) -> None:
        """Change the workspace in every way, without a change of sizes."""
        self.version += 1
        work = self.machine.workspace
        (work / "a").write_text(f"chapter {self.version:06}")
        (work / "d/b").write_text(f"{self.version:04}" * 5000)
        (work / "d/b").chmod(0o755 if self.version % 2 else 0o644)
        (work / "l").unlink(missing_ok=True)
        (work / "l").symlink_to("ab"[self.version % 2])
        (work / f"new{self.version % 3}").write_text("new")

    def restore(self) -> None:
        """Restore the copied workspace."""
        work = self.machine.workspace
        shutil.rmtree(work)
        shutil.copytree(self.before, work, symlinks=True)

    def keep_unchanged(self) -> None:
        """Change nothing."""

    def check(self, *, powerless: bool = False) -> None:
        """Sync once in a new process, which recovers; the next one sends nothing, and may ask for a sample."""
        self.recover(powerless=powerless)
        asked = len(self.machine.emulator.request_log.ops())
        again = self.machine.sync()
        assert again.word == "unchanged"
        assert {"upload", "initialize"}.isdisjoint(self.machine.emulator.request_log.ops()[asked:])

    def recover(self, *, powerless: bool) -> None:
        """Sync once in a new process, after which the sandbox equals the workspace."""
        ended = self.machine.sync()
        assert ended.word in ("initialized", "unchanged"), ended.said
        assert self.wanted().items() <= tree(self.machine.sandbox.workspace).items()
        self.check_folders(sent=ended.word == "initialized", powerless=powerless)

    def wanted(self) -> Tree:
        """Return what the sandbox has to hold."""
        return tree(self.machine.workspace)

    def check_folders(self, *, sent: bool, powerless: bool) -> None:
        """Check that no files are left over, and that the disk model is right."""
        state, spool = Path(self.machine.folders.state), Path(self.machine.folders.spool)
        names = {path.name for path in state.iterdir()}
        damaged = {name for name in names if name.endswith(".damaged")}
        drafts = {name for name in names if name.endswith(".new")}
        assert names - damaged - drafts <= FILES
        assert not damaged or powerless, "a mere kill damages nothing"
        if sent:  # or else what had been done was not undone: an archive in the bucket, a draft for the next to replace
            assert not drafts or powerless
            assert not PASSING & records(state)
        files = [path for path in spool.rglob("*") if path.is_file()]
        chunks = [path for path in files if path.suffix == ".chunk"]
        # The bytes of what was sent, and where they are in the chunks; drafts of these are replaced by the next one.
        others = {path.name.removesuffix(".new") for path in files if path.parent == spool}
        assert others <= {"chunk-index"}
        # What a look had fetched stays until the next one.
        assert {path.parent for path in files if path not in chunks} <= {spool, spool / "base", spool / "copies"}
        uploads = [entry for entry in self.machine.emulator.request_log.entries() if entry.op == "upload"]
        archive_bytes = max(entry.bytes_in for entry in uploads if entry.status == 200)
        # Those of the archive, of what was sent last for a merge, and of one that a kill left. Chunks that a power cut
        # brought back go with the next packing.
        if sent or not powerless:
            assert sum(path.stat().st_size for path in chunks) <= 3 * archive_bytes
        assert all(path.stat().st_mode & 0o077 == 0 for path in (state, spool, *state.iterdir(), *files))
        assert {path: self.machine.disk.contents[file] for path, file in self.machine.disk.names.items()} == (
            self.machine.written()
        )


class DeletionScenario(CrashScenario):
    """A workspace in which each version also deletes, and a sandbox with that setting of `deletions`."""

    def __init__(self, on: Machine, deletions: str, archive: str) -> None:
        on.set("sandbox", "deletions", deletions)
        on.set("sync", "archive", archive)
        self.exactly = deletions != "keep"
        super().__init__(on)

    def change(self) -> None:
        """Delete and restore files too, and change the kind of paths."""
        super().change()
        work, odd = self.machine.workspace, self.version % 2
        for path in work.glob("gone*"):
            path.unlink()
        (work / f"gone{self.version % 3}").write_text("comes back as it was")
        if (work / "kind").is_dir():
            shutil.rmtree(work / "kind")
        else:
            (work / "kind").unlink(missing_ok=True)
        if odd:
            (work / "kind").write_text("a file")
        else:
            (work / "kind/deep").mkdir(parents=True)
            (work / "kind/deep/f").write_text("in a folder")

    def recover(self, *, powerless: bool) -> None:
        super().recover(powerless=powerless)
        self.machine.sandbox.wait()
        if self.exactly:
            assert tree(self.machine.workspace) == tree(self.machine.sandbox.workspace)


class SavingScenario(CrashScenario):
    """A workspace and a sandbox in which each version meets another one of the agent's, which is saved first."""

    def __init__(self, on: Machine) -> None:
        on.set("sandbox", "agent_changes", "save")
        self.agents: set[bytes] = set()
        super().__init__(on)

    def change(self) -> None:
        """Have the agent write, too."""
        super().change()
        if (place := self.machine.sandbox.workspace / "a").exists():
            self.agents.discard(place.read_bytes())  # its own
            self.agents.add(f"agent {self.version}".encode())
            place.write_text(f"agent {self.version}")

    def wanted(self) -> Tree:
        """Return what the sandbox has to hold: what only the agent has changed stays."""
        is_kept = (self.machine.sandbox.workspace / "a").read_bytes() in self.agents
        return {path: entry for path, entry in super().wanted().items() if not (is_kept and path == "a")}

    def recover(self, *, powerless: bool) -> None:
        super().recover(powerless=powerless)
        # Read from a copy: a connection leaves files beside the database.
        copy = Path(shutil.copytree(self.machine.folders.state, self.before.parent / "copy", dirs_exist_ok=True))
        saved, folder, found = SavedVersions(StateDb(str(copy)), SystemClock()), copy / "restored", set()
        for version in saved.all():
            assert saved.restore(version, str(folder)).left_out == []
            found.add((folder / "a").read_bytes())
            shutil.rmtree(folder)
        shutil.rmtree(copy)
        assert self.agents <= {*found, (self.machine.sandbox.workspace / "a").read_bytes()}


@pytest.fixture
def scenario(machine: Machine) -> CrashScenario:
    """Return a machine with an unsynced workspace."""
    return CrashScenario(machine)


Then = Callable[[CrashScenario], None]
AFTERWARDS: list[Then] = [CrashScenario.restore, CrashScenario.change, CrashScenario.keep_unchanged]
DEATHS = pytest.mark.parametrize("torn", [False, True], ids=["before", "half-way"])


def _steps(steps: Sequence[str], *, torn: bool) -> int:
    """Return how many steps a process can die at."""
    return sum(step in ("write", "send") for step in steps) if torn else len(steps)


def _deaths(
    scenario: CrashScenario,
    choice: Choice,
    afterwards: Sequence[Then] = AFTERWARDS,
    cuts: Sequence[PowerCut | None] = (None,),
    *,
    torn: bool,
    anew: bool = False,
) -> int:
    """Die at the chosen steps of a sync, or half-way through them, and return how many steps it has.

    `anew`: each time with nothing recorded yet.
    """
    then, cut, chance = cycle(afterwards), cycle(cuts), Random(5)
    powerless = False
    whole = scenario.machine.sync()
    if not anew:
        scenario.change()
        whole = scenario.machine.sync()
    count = _steps(whole.steps, torn=torn)
    for step in choice(count):
        if anew:
            scenario.machine.forget_all()
        scenario.keep()
        scenario.change()
        if scenario.machine.sync(step, torn=torn).word != "killed":
            break
        if (how := next(cut)) is not None:
            scenario.machine.cut_power(how, chance)
            powerless = True
        next(then)(scenario)
        scenario.check(powerless=powerless)
    return count


def test_the_steps_are_all_there(scenario: CrashScenario) -> None:
    """Every step that matters is counted; a new way to write that is not counted fails here."""
    steps = scenario.machine.sync().steps
    at = steps.index("move workspace")
    assert steps[at - 3 : at + 2] == ["open workspace.new", "write", "flush", "move workspace", "flush folder"]
    *commits, of_history = [step for step in steps if step.startswith("commit")]
    assert commits == ["commit upload_url", MARKED, "commit base leftovers seen uncertain"]
    assert of_history == "commit"  # a row, and no record
    requested = steps[steps.index(MARKED) + 1 : steps.index(commits[-1])]
    assert set(requested) <= {"connect", "send", "recv"}
    assert {"send", "recv"} <= set(requested)
    assert {"connect", "send", "recv", "open 1.loose", "make folder chunks", "move status.json"} <= set(steps)
    scenario.check_folders(sent=True, powerless=False)


@DEATHS
@pytest.mark.parametrize("cuts", [[None], [*PowerCut, PowerCut.ANY]], ids=["killed", "without power"])
def test_some_deaths(scenario: CrashScenario, cuts: list[PowerCut | None], *, torn: bool) -> None:
    """After one sync the sandbox has the workspace: as it was in progress, as it is since, or as it was before.

    It is so after a power cut too: names, contents, or some of either are lost.
    """
    assert _deaths(scenario, few, cuts=cuts, torn=torn) > (8 if torn else 30)


MODES = [("keep", "auto"), ("mirror", "full"), ("mirror", "auto")]


@pytest.mark.parametrize(("mode", "torn"), [*zip(MODES, (True, False, True), strict=True)], ids=str)
def test_some_deaths_in_each_mode(scenario: CrashScenario, mode: tuple[str, str], *, torn: bool) -> None:
    """With deletions and partial archives the next process recovers, too."""
    pruned = DeletionScenario(scenario.machine, *mode)
    assert _deaths(pruned, lambda count: few(count, 5), cuts=[None, *PowerCut], torn=torn) > (8 if torn else 30)


@FEW_OR_ALL
@DEATHS
def test_what_was_overwritten_is_saved(scenario: CrashScenario, choice: Choice, *, torn: bool) -> None:
    """Whatever ends the process: each version that the agent had is kept whole before it is overwritten there."""
    _deaths(SavingScenario(scenario.machine), choice, cuts=[*PowerCut, None], torn=torn)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("mode", "anew"), [(None, False), (None, True), *((mode, False) for mode in MODES)])
@DEATHS
@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("cut", [*PowerCut, None])
def test_every_death(
    scenario: CrashScenario, mode: tuple[str, str] | None, then: Then, cut: PowerCut | None, *, torn: bool, anew: bool
) -> None:
    """Each step, each power cut, each change afterwards, in each mode: `-m long`, many minutes."""
    if mode is not None:
        scenario = DeletionScenario(scenario.machine, *mode)
    _deaths(scenario, all_of, [then], [cut], torn=torn, anew=anew)
