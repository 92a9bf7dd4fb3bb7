"""Processes that write to a workspace or undo it, and are killed, or meet an error, at any step.

Run as a program by `writer_machine.WriterMachine`. A step is a call that changes a file, or a commit, as in
`crash_worker`.
"""

from __future__ import annotations

import os
import pickle
from typing import Any

from syncd.archive.base_store import digest_at
from syncd.core.clock import SystemClock
from syncd.core.errors import SyncdError
from syncd.merge import workspace_writer
from syncd.merge.path_changes import PathChange
from syncd.merge.workspace_writer import WorkspaceWriter
from syncd.model.entry import ABSENT, Entry, Kind
from syncd.store.state_db import Record, StateDb
from tests.component.crash_worker import StepKiller, arm, arm_commits
from tests.component.forks import Order, serve

_MORE_STEPS = ("symlink", "link", "fchmod", "chmod", "utime", "copy_file_range")


class StepBreaker(StepKiller):
    """Lets one step fail in place of killing the process."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__(at, torn=False, folders=[], report="")
        self._number = number

    def die(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


def _arm(trip: StepKiller) -> None:
    arm(trip)
    arm_commits(trip)
    for name in _MORE_STEPS:
        setattr(os, name, _stepped(trip, name, getattr(os, name)))
    flush = os.fsync

    def named_flush(descriptor: int) -> None:
        with trip.lock:  # files are flushed by several threads
            flush(descriptor)
            trip.steps[-1] += " " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))

    os.fsync = named_flush  # type: ignore[assignment]


def _stepped(trip: StepKiller, name: str, real: Any) -> Any:
    def call(*args: Any, **keys: Any) -> Any:
        trip.step(name)
        return real(*args, **keys)

    return call


def plan_of(writer: WorkspaceWriter, changes: list[tuple[str, list[Any] | None]]) -> list[PathChange]:
    """Return a plan from (path, None or kind, mode, target, content) by what is there now."""
    seen = writer.look([path for path, _ in changes])
    return [
        PathChange(path, seen[path], ABSENT)
        if new is None
        else PathChange(path, seen[path], Entry(Kind(new[0]), new[1], target=new[2], digest=digest_at(new[3])), new[3])
        for path, new in changes
    ]


def _run(order: Order) -> None:
    os.umask(0o022)
    db = StateDb(order["state"])
    sent = Record(db, "sent", int, "")  # what counts as sent; it is to change with the journal, or not at all
    writer = WorkspaceWriter(order["workspace"], db, SystemClock())
    workspace_writer.record_undone = lambda *_: sent.remove()
    plan = plan_of(writer, order["changes"])
    trip = (
        StepBreaker(order["at"], order["errno"])
        if order["errno"]
        else StepKiller(order["at"], torn=order["torn"], folders=[], report=order["report"])
    )
    _arm(trip)
    try:
        answer: Any = (
            writer.undo() if order["undo"] else writer.write(plan, (), lambda written: sent.save(len(written.done)))
        )
        ended = ("done", repr(answer))
    except SyncdError as failure:
        ended = (type(failure).__name__, str(failure))
    descriptor = trip.real["open"](order["report"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    trip.real["write"](descriptor, pickle.dumps((ended, trip.steps, trip.events)))


if __name__ == "__main__":
    serve(_run)
