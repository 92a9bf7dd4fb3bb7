"""Writes to the workspace are all or nothing, lose nothing that changed meanwhile, and can be undone exactly.

A process is killed at each step of a write and of an undo, and each step fails once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from tests.component.writer_machine import WriterMachine, snapshot, timeless, writer_machine

MOST_STEPS = 1000


@pytest.fixture
def on(tmp_path: Path) -> Iterator[WriterMachine]:
    """Return a machine. Its disk is in memory if possible, where a flush costs nothing."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    with TemporaryDirectory(dir=memory, ignore_cleanup_errors=True) as folder, writer_machine(Path(folder)) as on:
        yield on


def _expected(on: WriterMachine) -> dict[str, object]:
    """What `changes` makes of `fill`, by hand."""
    found = timeless(snapshot(on.workspace))
    for path, new in on.changes():
        found.pop(path, None)
        if new is not None:
            kind, mode, target, content = new
            found[path] = {
                "f": lambda mode=mode, content=content: ("file", Path(content).read_bytes(), mode, 0),
                "d": lambda mode=mode: ("directory", None, mode, 0),
                "l": lambda target=target: ("link", target, 0, 0),
            }[kind]()
    for folder in ("implied", "implied/by", "named", "named/" + "n" * 255):
        found[folder] = ("directory", None, on.workspace.stat().st_mode & 0o777, 0)
    return found


def test_every_kind_of_change(on: WriterMachine) -> None:
    """All that is planned is there afterwards, with exact modes; undo gives back all that was, with its times."""
    on.fill()
    before, expected = snapshot(on.workspace), _expected(on)
    changes = on.changes()
    written = on.writer.write(on.plan(*changes), b"my note")
    assert written.conflicts == ()
    assert written.written == tuple(sorted(path for path, _ in changes))
    assert timeless(snapshot(on.workspace)) == expected
    assert on.state_files() == {"journal", "kept", "lock"}
    undone = on.writer.undo()
    assert snapshot(on.workspace) == before
    assert (undone.restored, undone.left, undone.note) == (written.written, (), b"my note")
    assert on.state_files() == {"lock"}
    again = on.writer.undo()
    assert (again.restored, again.left, again.note) == ((), (), None)
    assert snapshot(on.workspace) == before


@pytest.mark.parametrize("torn", [False, True], ids=["before", "half-way"])
def test_killed_at_each_step_of_a_write(on: WriterMachine, torn: bool) -> None:
    """Whenever a write is killed, undo gives the workspace back, and nothing is left over."""
    for step in range(1, MOST_STEPS):
        on.fresh()
        on.fill()
        before = snapshot(on.workspace)
        ended = on.run(on.changes(), step, torn=torn)
        undone = on.writer.undo()
        assert snapshot(on.workspace) == before, ended.steps[-3:]
        assert undone.left == (), ended.steps[-3:]
        assert on.state_files() <= {"lock", "pending.new"}
        if ended.word != "killed":
            break
    assert step > (10 if torn else 150)


@pytest.mark.parametrize("torn", [False, True], ids=["before", "half-way"])
def test_killed_at_each_step_of_an_undo(on: WriterMachine, torn: bool) -> None:
    """Whenever an undo is killed, the next one completes it."""
    for step in range(1, MOST_STEPS):
        on.fresh()
        on.fill()
        before = snapshot(on.workspace)
        on.writer.write(on.plan(*on.changes()), b"")
        ended = on.run([], step, undo=True, torn=torn)
        undone = on.writer.undo()
        assert snapshot(on.workspace) == before, ended.steps[-3:]
        assert undone.left == (), ended.steps[-3:]
        if ended.word != "killed":
            break
    assert step > (10 if torn else 150)


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(on: WriterMachine, seed: int) -> None:
    """Writes and undos that are killed in a row leave nothing; a write takes back the killed one before it begins."""
    chance = Random(seed)
    on.fill()
    before, expected = snapshot(on.workspace), _expected(on)
    for _ in range(20):
        for _ in range(chance.randint(1, 4)):
            written = timeless(snapshot(on.workspace)) == expected  # only the last write can be undone
            on.run(on.changes(), chance.randint(1, 300), undo=written or chance.random() < 0.5)
        while on.writer.undo().note is not None:
            pass
        assert snapshot(on.workspace) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_each_step_fails_once(on: WriterMachine, number: int) -> None:
    """A failure of any step takes back everything and is told in one line, or was of no consequence."""
    failed = 0
    for step in range(1, MOST_STEPS):
        on.fresh()
        on.fill()
        before = snapshot(on.workspace)
        ended = on.run(on.changes(), step, errno=number)
        if ended.word == "done":
            assert "conflicts=()" in ended.said
        else:
            failed += 1
            assert ended.word == "TryLater"
            assert "\n" not in ended.said
            assert os.strerror(number) in ended.said
            assert snapshot(on.workspace) == before, ended.steps[-3:]
        on.writer.undo()
        assert snapshot(on.workspace) == before, ended.steps[-3:]
        if len(ended.steps) < step:
            break
    assert failed > 100
