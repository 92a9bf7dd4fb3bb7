"""Any life of a workspace and its sandbox, with a person and an agent at the same files: nothing is ever lost.

Hypothesis makes the stories: edits here and there, syncs, restarts, deaths, `apply` and its undo. Each edit writes a
word that is nowhere else, so what was lost can be named. `SYNCD_STORIES=500` makes so many, each time other ones.
"""

from __future__ import annotations

import functools
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from syncd.archive.snapshotter import SyncMode
from syncd.cli import agent_side
from syncd.cli.apply import undoing
from syncd.cli.apply.command import command as apply_command
from syncd.core.directories import directories_for
from syncd.merge.workspace_writer import WorkspaceWriter
from syncd.model.entry import Kind
from syncd.sandbox.saved_versions import SavedVersions
from syncd.store.state_db import StateDb
from tests.agent import Agent
from tests.integration.sync_rig import KEY, Rig, rigged

_STORIES = int(os.environ.get("SYNCD_STORIES", "0"))
_ODD = os.fsdecode(b"caf\xe9 \n'\"")
PATHS = ("a", "d/c", "d/e", "d/e/f", _ODD, "new/-x")
_FIRST = ("a", "b", "d/c", "d/e/f", _ODD)
_WORD = re.compile(rb"w\d{6}")
_MIDDLE = b"".join(b"line %d\n" % number for number in range(8))

Found = tuple[Any, ...]  # ("d",), ("l", target) or ("f", content, executable)
Seen = dict[str, Found]

Edit = tuple[str, str, str]
paths = st.sampled_from(PATHS)
# Edits of contents are the most, so that both sides often have the same file at once.
_changes = st.sampled_from([*["head"] * 3, *["tail"] * 3, *["old stamp"] * 2, "delete", "chmod", "link", "directory"])
edits_ = st.lists(st.tuples(st.sampled_from(["here", "there"]), _changes, paths), max_size=8)


class _Died(BaseException):
    """The process died."""


def seen(top: Path) -> Seen:
    """Return all that is in a folder; of the mode only the executable bit."""
    found: Seen = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in (*folders, *files):
            full = os.path.join(folder, name)
            status = os.lstat(full)
            path = os.fsdecode(os.path.relpath(full, os.fsencode(top)))
            if stat.S_ISLNK(status.st_mode):
                found[path] = ("l", os.readlink(full))
            elif stat.S_ISDIR(status.st_mode):
                found[path] = ("d",)
            else:
                with open(full, "rb") as file:
                    found[path] = ("f", file.read(), bool(status.st_mode & 0o100))
    return found


def words(*entries: Found | None) -> set[bytes]:
    """Return the words that edits wrote there."""
    return {word for entry in entries if entry and len(entry) > 1 for word in _WORD.findall(entry[1])}


def is_near(one: str, other: str) -> bool:
    """True if the paths are the same, or one is below the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


class Story(RuleBasedStateMachine):
    """One workspace, its sandbox, and what may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="story-", dir=_memory()))
        self.rig: Rig = self._stack.enter_context(rigged(Path(folder)))
        self.state = directories_for(str(self.rig.workspace), self.rig.environ).state
        self.here, self.there = Agent(self.rig.workspace), Agent(self.rig.sandbox.workspace)
        self.number = 0
        self.theirs: set[bytes] = set()  # the agent's words that must be somewhere
        self.was_there: set[bytes] = set()  # all words that ever were in the sandbox
        self.arrived: dict[str, set[Found]] = {}  # all that ever was the same on both sides
        self.clean: Seen = {}  # what was the same on both sides, and was not changed here since
        self.applied: tuple[Seen, Seen] | None = None  # workspace and `clean` before the last apply
        self._stack.enter_context(_in_scripted_time(self.rig))

    @initialize(policy=st.sampled_from(["save", "hold"]), archive=st.sampled_from(["auto", "full"]))
    def begin(self, policy: str, archive: str) -> None:
        """The first sync."""
        for path in _FIRST:
            self._write(self.here, path, "head", keeps_mtime=False)
        self.rig.use_defaults()
        self._configure(policy, archive)
        self._sync()

    def teardown(self) -> None:
        self._stack.close()

    # -- a person and an agent

    def _edit(self, edits: list[Edit]) -> None:
        """Let both sides work."""
        for side, change, path in edits:
            at = self.here if side == "here" else self.there
            if not _is_reachable(Path(os.fsdecode(at.path(""))), path):
                continue
            make = functools.partial(self._change, at, path, change)
            if at is self.here:
                self._changed_here(make)
            else:
                self._changed_there(make)

    def _change(self, at: Agent, path: str, change: str) -> None:
        if change == "delete":
            _delete(at, path)
        elif change == "chmod":
            _chmod(at, path)
        elif change in ("link", "directory"):
            self._other_kind(at, path, change)
        else:
            self._write(at, path, change, keeps_mtime=change == "old stamp" and at is self.there)

    # -- syncd

    @rule(policy=st.sampled_from(["save", "hold"]), archive=st.sampled_from(["auto", "full"]))
    def configure(self, policy: str, archive: str) -> None:
        self._configure(policy, archive)

    @rule(edits=edits_)
    def sync(self, edits: list[Edit]) -> None:
        self._edit(edits)
        self._sync()

    def _sync(self) -> None:
        with self._keeping():
            self._settle()
        self._note_arrived()

    @rule(edits=edits_)
    def force(self, edits: list[Edit]) -> None:
        self._edit(edits)
        with self._losing_nothing():
            self.rig.sync(SyncMode.FORCED)
        self._note_arrived()

    @rule(
        edits=edits_, fault=st.sampled_from(["initialize: lost", "initialize: 503", "upload: reset", "execute: 500 x2"])
    )
    def sync_with_a_fault(self, edits: list[Edit], fault: str) -> None:
        self._edit(edits)
        self.rig.emulator.faults.script(fault)
        with self._keeping():
            self._settle()
        self._note_arrived()
        self.rig.emulator.faults.clear()
        self.rig.wait_for_programs()

    @rule(edits=edits_, number=st.integers(1, 12), when=st.sampled_from(["before", "after"]))
    def die(self, edits: list[Edit], number: int, when: str) -> None:
        """The process dies at one of its requests."""
        self._edit(edits)
        exchange, left = self.rig.client.exchange, [number]

        def dies(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and when == "before":
                raise _Died
            answer = exchange(*args, **options)
            if left[0] == 0:
                raise _Died
            return answer

        with self._keeping(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.rig.client, "exchange", dies)
            try:
                self.rig.sync()
            except _Died:
                self.rig.sandbox.wait()
                self.rig.restart()
        self._note_arrived(is_known=left[0] > 0)

    @rule(edits=edits_, path=st.none() | paths, deletions=st.booleans())
    def apply(self, edits: list[Edit], path: str | None, *, deletions: bool) -> None:
        """Nothing here is replaced that was not sent; a second time does nothing."""
        self._edit(edits)
        args = ([] if path is None else [str(self.rig.workspace / path)]) + (["--deletions"] if deletions else [])
        self._apply(args)
        after = seen(self.rig.workspace)
        again = self._command(*args)
        assert (again["taken"], again["merged"], again["deleted"]) == ([], [], [])
        assert seen(self.rig.workspace) == after

    @rule(edits=edits_)
    def apply_and_sync(self, edits: list[Edit]) -> None:
        """Both sides hold the same then, but for what is named."""
        self._edit(edits)
        document = self._apply(["--deletions"])
        self._sync()
        here, there = seen(self.rig.workspace), seen(self.rig.sandbox.workspace)
        named = [*document["conflicts"], *document["never"], *document["stays"], *self.rig.cycle.agent_status.held]
        services = self.rig.cycle.services
        if services is not None:  # what could not be removed there, or put there, is in the warnings
            named += [*services.state.leftovers.entries, *services.state.seen.obstacles]
        differing = {path for path in here.keys() | there.keys() if here.get(path) != there.get(path)}
        assert {path for path in differing if not any(is_near(path, each) for each in named)} == set()

    @rule(edits=edits_)
    def apply_and_undo(self, edits: list[Edit]) -> None:
        """The workspace is as before, to the times of its files."""
        self._edit(edits)
        before, times = seen(self.rig.workspace), _times(self.rig.workspace)
        self._apply(["--deletions"])
        if seen(self.rig.workspace) == before:
            assert _times(self.rig.workspace) == times
            return
        clean = self.applied[1] if self.applied else {}
        with self._losing_nothing(workspace_stays=False):
            undone = self._command("--undo")
        assert (seen(self.rig.workspace), _times(self.rig.workspace)) == (before, times)
        assert undone["stays"] == []
        self.clean, self.applied = clean, None

    @rule(edits=edits_, when=st.sampled_from(["before", "after"]))
    def die_in_apply(self, edits: list[Edit], when: str) -> None:
        """The command dies right before or after it writes; what it wrote stays until it is taken back."""
        self._edit(edits)
        write = WorkspaceWriter.write

        def dies(writer: WorkspaceWriter, *args: Any) -> None:
            if when == "after":
                write(writer, *args)
            raise _Died

        with pytest.MonkeyPatch.context() as patch, suppress(_Died):
            patch.setattr(WorkspaceWriter, "write", dies)
            self._apply(["--deletions"])
        for path in PATHS:
            self._forget_near(path)
        self._note_arrived(is_known=False)
        self.applied = None

    @rule(edits=edits_, syncs=st.booleans())
    def undo(self, edits: list[Edit], *, syncs: bool) -> None:
        """Whatever happened since, it changes only what the last apply wrote."""
        self._edit(edits)
        if syncs:
            self._sync()
        before = seen(self.rig.workspace)
        with self._losing_nothing(workspace_stays=False):
            undone = self._command("--undo")
        after = seen(self.rig.workspace)
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        assert {path for path in changed if not any(is_near(path, each) for each in undone["undone"])} == set()
        for path in changed:
            self._forget_near(path)
        self.applied = None

    @invariant()
    def what_the_agent_wrote_is_somewhere(self) -> None:
        self._note_there()
        assert self._lost() == set()

    # -- helpers

    def _configure(self, policy: str, archive: str) -> None:
        self.rig.keys["sandbox"]["agent_changes"] = policy
        self.rig.keys["sync"]["archive"] = archive
        self.rig.restart()
        lines = [
            f"{table}.{key} = {json.dumps(value)}\n"
            for table, values in self.rig.keys.items()
            for key, value in values.items()
        ]
        (self.rig.folder / "config.toml").write_text("".join(lines))

    def _settle(self) -> None:
        for _ in range(6):
            if not self.rig.sync()[0].follow_up:
                return
        raise AssertionError("there is always one more sync")

    def _apply(self, args: list[str]) -> dict[str, list[str]]:
        before, clean = seen(self.rig.workspace), dict(self.clean)
        with self._losing_nothing(workspace_stays=False):
            document = self._command(*args)
        after, there = seen(self.rig.workspace), seen(self.rig.sandbox.workspace)
        named = {*document["taken"], *document["merged"], *document["deleted"]}
        for path, entry in before.items():
            if after.get(path) == entry:
                continue
            assert any(is_near(path, each) for each in named)
            if entry in self.arrived.get(path, ()):
                continue
            assert path in document["merged"]
            assert words(entry) - words(after[path]) <= self.was_there
            if there[path][1:] != after[path][1:]:
                assert not words(after[path]) - words(entry) - words(there[path])
        for path in document["taken"]:
            if after.get(path) == there.get(path):
                self._forget_near(path)
        for path in named:
            self._forget_near(path)
        self._note_arrived()
        self.applied = (before, clean) if named else self.applied
        return document

    def _command(self, *args: str) -> dict[str, list[str]]:
        words_ = [*args, "--json", "--config", str(self.rig.folder / "config.toml")]
        environ = {**self.rig.environ, "KLAVIS_API_KEY": KEY}
        there = seen(self.rig.sandbox.workspace)
        done = CliRunner().invoke(apply_command, words_, env=environ, standalone_mode=False, catch_exceptions=False)
        assert seen(self.rig.sandbox.workspace) == there
        document: dict[str, list[str]] = json.loads(done.stdout)
        assert done.return_value == (1 if document["conflicts"] else 0)
        return document

    @contextmanager
    def _losing_nothing(self, *, workspace_stays: bool = True) -> Iterator[None]:
        """The workspace stays as it is; words of the agent that are nowhere afterwards were lost."""
        before = seen(self.rig.workspace)
        self._note_there()
        yield
        if workspace_stays:
            assert seen(self.rig.workspace) == before
        assert self._lost() == set()

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """And what only the agent changed stays as it is there."""
        before = seen(self.rig.sandbox.workspace)
        with self._losing_nothing():
            yield
        after = seen(self.rig.sandbox.workspace)
        for path, entry in self.clean.items():
            if path in before and before[path] != entry:
                assert after.get(path) == before[path]

    def _lost(self) -> set[bytes]:
        found = words(*seen(self.rig.workspace).values(), *seen(self.rig.sandbox.workspace).values())
        return self.theirs - found - self._saved()

    def _saved(self) -> set[bytes]:
        found: set[bytes] = set()
        versions = SavedVersions(StateDb(self.state), self.rig.clock)
        for version in versions.all():
            for saved in version.paths.values():
                if saved.kind is Kind.FILE:
                    content = Path(versions.content_path(saved.digest)).read_bytes()
                else:
                    content = os.fsencode(saved.target)
                found |= set(_WORD.findall(content))
        return found

    def _note_there(self) -> None:
        self.was_there |= words(*seen(self.rig.sandbox.workspace).values())

    def _note_arrived(self, *, is_known: bool = True) -> None:
        here, there = seen(self.rig.workspace), seen(self.rig.sandbox.workspace)
        for path, entry in here.items():
            if there.get(path) == entry:
                self.arrived.setdefault(path, set()).add(entry)
                if is_known:
                    self.clean[path] = entry

    def _changed_here(self, change: Callable[[], None]) -> None:
        before = seen(self.rig.workspace)
        change()
        after = seen(self.rig.workspace)
        for each in before.keys() | after.keys():
            if before.get(each) != after.get(each):
                self._forget_near(each)
        self.theirs -= words(*before.values()) - words(*after.values())  # a person had it, and did not want it

    def _changed_there(self, change: Callable[[], None]) -> None:
        before = words(*seen(self.rig.sandbox.workspace).values())
        change()
        after = words(*seen(self.rig.sandbox.workspace).values())
        self.theirs = (self.theirs - (before - after)) | (after - before)

    def _forget_near(self, path: str) -> None:
        for each in [each for each in self.clean if is_near(each, path)]:
            del self.clean[each]

    def _word(self) -> bytes:
        self.number += 1
        return b"w%06d" % self.number

    def _write(self, at: Agent, path: str, side: str, *, keeps_mtime: bool) -> None:
        """Write a new word into one end of a file, of which the rest stays."""
        full = at.path(path)
        if os.path.isdir(full) and not os.path.islink(full):
            at.delete(path)
        before = at.read(path) if os.path.isfile(full) and not os.path.islink(full) else b""
        head, found, tail = before.partition(_MIDDLE)
        if not found:
            head = tail = self._word() + b"\n"
        elif side == "head":
            head = self._word() + b"\n"
        else:
            tail = self._word() + b"\n"
        content = head + _MIDDLE + tail
        if keeps_mtime and before:
            at.write_with_old_mtime(path, content)
        else:
            at.write(path, content)

    def _other_kind(self, at: Agent, path: str, kind: str) -> None:
        if kind == "link":
            at.symlink(path, self._word())
            return
        with suppress(FileNotFoundError):
            at.delete(path)
        at.write(f"{path}/inside", self._word() + b"\n" + _MIDDLE + self._word() + b"\n")


def _is_reachable(top: Path, path: str) -> bool:
    """True if all above the path are directories, or missing."""
    above = top
    for name in path.split("/")[:-1]:
        above /= name
        if os.path.lexists(above) and (above.is_symlink() or not above.is_dir()):
            return False
    return True


def _delete(at: Agent, path: str) -> None:
    if at.exists(path):
        at.delete(path)


def _chmod(at: Agent, path: str) -> None:
    full = at.path(path)
    if os.path.isfile(full) and not os.path.islink(full):
        os.chmod(full, os.stat(full).st_mode ^ 0o111)


def _times(top: Path) -> dict[str, int]:
    return {
        os.fsdecode(full): os.lstat(full).st_mtime_ns
        for folder, _, files in os.walk(os.fsencode(top))
        for full in (os.path.join(folder, name) for name in files)
    }


def _memory() -> str | None:
    """A disk in memory, where a flush costs nothing."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def _in_scripted_time(rig: Rig) -> Iterator[None]:
    """Let commands in this process go by the rig's clock, and leave its logs alone."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (agent_side, undoing):
            patch.setattr(module, "CLOCK", rig.clock)
        patch.setattr(agent_side, "set_up_logs", lambda *_: None)
        yield


_THEIRS, _OURS, _SAME_STAMP = ("there", "head", "a"), ("here", "tail", "a"), ("there", "old stamp", "a")
# What each of the products that lost something did wrong, and a story of a few steps that shows it.
_STORIES_THAT_LOST: dict[str, Callable[[Story], object]] = {
    "it saved nothing before it overwrote": lambda story: story.sync([_THEIRS, _OURS]),
    "it saved nothing before a forced sync": lambda story: story.force([_THEIRS]),
    "whole archives held what only the agent had changed": lambda story: story.sync([_THEIRS, ("here", "tail", "d/c")]),
    "it took files of the same size and time for the same": lambda story: story.sync([_SAME_STAMP, _OURS]),
    "it merged with what was on the disk instead of what was sent": lambda story: story.apply_and_sync(
        [_THEIRS, _OURS]
    ),
    "it tried again and again to write below a file that the agent put in a directory's place": lambda story: (
        story.sync([("there", "delete", "d/e/f"), ("there", "delete", "d/e"), ("there", "head", "d/e")]),
        story.sync([("here", "head", "d/e/f")]),
        story.sync([]),
    ),
    "it took edits here for what was sent": lambda story: story.apply(
        [_THEIRS, ("here", "head", "a")], None, deletions=False
    ),
    "it recorded what it took before it wrote that": lambda story: (
        story.die_in_apply([_THEIRS], "before"),
        story.sync([]),
    ),
    "it took its merge for what the agent had": lambda story: story.apply(
        [_THEIRS, ("here", "chmod", "a")], None, deletions=False
    ),
    "its merge wrote what was here already": lambda story: (
        story.die_in_apply([_THEIRS], "after"),
        story.apply_and_undo([("here", "chmod", "a")]),
    ),
    "an undo saved nothing that had been merged": lambda story: (
        story.apply_and_sync([_THEIRS, _OURS]),
        story.undo([], syncs=True),
        story.sync([]),
    ),
}


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        *((name, "auto") for name in _STORIES_THAT_LOST),
        *((name, "full") for name in list(_STORIES_THAT_LOST)[:4]),
        *(pytest.param(name, "full", marks=pytest.mark.long) for name in list(_STORIES_THAT_LOST)[4:]),
    ],
)
def test_stories_that_lost_something(name: str, archive: str) -> None:
    """They are short, and always the same."""
    story = Story()
    try:
        story.begin("save", archive)
        _STORIES_THAT_LOST[name](story)
        story.what_the_agent_wrote_is_somewhere()
    finally:
        story.teardown()


@pytest.mark.parametrize("stories", [4, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_nothing_is_lost(stories: int) -> None:
    """Neither a byte here that was not sent, nor one of the agent's that is neither here nor saved."""
    run_state_machine_as_test(
        Story,
        settings=settings(
            max_examples=_STORIES or stories,
            stateful_step_count=12,
            derandomize=not _STORIES,
            database=None,
            deadline=None,
            print_blob=False,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
