"""Processes that sync once and are killed at any step, run as a program by `crash_machine.Machine`.

A step is a call that changes what other processes see: a file created, written, flushed, renamed or removed, a
transaction of the state committed, bytes sent, a response received.

Changes of the two folders are also recorded, for a power cut that may follow, but for those of the state's database,
whose commits survive one.
"""

from __future__ import annotations

import builtins
import functools
import gc
import io
import os
import pickle
import signal
import socket
import sqlite3
import stat
import threading
from importlib import import_module
from typing import Any

from syncd.store.state_db import NAME, Record, StateDb
from tests.component.forks import Order, serve

# What a sync loads when it needs it.
LOADED_LATE = ("_strptime", "encodings.idna", "gzip", "syncd.remote.network")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# What is written down of each step in the folders, by its first word:
#   open PATH FILE made emptied · write FILE BYTES · cut FILE SIZE · flush FILE · flush-folder PATH · move FROM TO ·
#   link FROM TO · remove PATH
# FILE is the number of a file, under any name.
Event = tuple[Any, ...]


class StepKiller:
    """Counts and records the steps, and kills its process at one of them."""

    def __init__(self, at: int, *, torn: bool, folders: list[str], report: str) -> None:
        """Kill before the `at`-th step; 0: never."""
        self._left = at
        self._torn = torn
        self._folders = tuple(folder + os.sep for folder in folders)
        self._report = report
        self._files: dict[int, int] = {}
        self._count = 0
        self.lock = threading.RLock()  # held for a step and its record: another thread may die in between
        self.steps: list[str] = []
        self.events: list[Event] = []
        self.real: dict[str, Any] = {}

    def step(self, name: str, what: str = "") -> None:
        """Count a step that is about to happen."""
        with self.lock:
            self.steps.append(f"{name} {os.path.basename(what)}".rstrip())
            if not self._torn:
                self._left -= 1
                if self._left == 0:
                    self.die()

    def step_in_two(self, name: str) -> bool:
        """Count a step that can be half done. True: do half of it, then call `die`."""
        with self.lock:
            self.step(name)
            if self._torn:
                self._left -= 1
            return self._torn and self._left == 0

    def die(self) -> None:
        """Write the report, then end as by `kill -9`."""
        self.tell(None)
        os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, ended: tuple[str, str] | None) -> None:
        """Write the report: how the process ended, its steps and events."""
        descriptor = self.real["open"](self._report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self.real["write"](descriptor, pickle.dumps((ended, self.steps, self.events)))
        os.close(descriptor)

    def note(self, word: str, path: str, *more: Any) -> None:
        """Record an event if it is in one of the folders."""
        if path.startswith(self._folders) and f"/{NAME}" not in path:
            self.events.append((word, path, *more))

    def note_file(self, word: str, descriptor: int, *more: Any) -> None:
        """Record an event by its descriptor."""
        number = self._files.get(descriptor)
        if number is not None:
            self.events.append((word, number, *more))

    def opened(self, path: str, descriptor: int, *, made: bool, emptied: bool) -> None:
        """Note that a file of the folders is open for writing."""
        self._files.pop(descriptor, None)
        if path.startswith(self._folders) and f"/{NAME}" not in path:
            self._count += 1
            self._files[descriptor] = self._count
            self.events.append(("open", path, self._count, made, emptied))


class _SteppedFile(io.RawIOBase):
    """A file opened by its descriptor, in which each write is a step."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        left = bytes(content)
        while left:
            left = left[os.write(self._descriptor, left) :]
        return len(content)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)


def arm_commits(trip: StepKiller) -> None:
    """Make each commit a step that names the records in it."""
    named: set[str] = set()
    commit, save, remove = StateDb._commit, Record.save, Record.remove

    def committed(self: StateDb, connection: sqlite3.Connection) -> None:
        trip.step(" ".join(("commit", *sorted(named))))
        named.clear()
        commit(self, connection)

    def saved(self: Record[Any], value: Any) -> None:
        named.add(self._name)
        save(self, value)

    def removed(self: Record[Any]) -> None:
        if self._rows():
            named.add(self._name)
        remove(self)

    StateDb._commit = committed  # type: ignore[method-assign]
    Record.save, Record.remove = saved, removed  # type: ignore[method-assign]


def _place(path: Any, dir_fd: int | None) -> str:
    folder = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.getcwd()
    return os.path.join(folder, os.fsdecode(path))


def arm(trip: StepKiller) -> None:
    """Install the killer before every step."""
    real = trip.real
    for name in (
        "open",
        "write",
        "fsync",
        "ftruncate",
        "fdopen",
        "replace",
        "rename",
        "link",
        "unlink",
        "rmdir",
        "mkdir",
    ):
        real[name] = getattr(os, name)

    def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if not flags & _WRITES:
            return int(real["open"](path, flags, mode, dir_fd=dir_fd))
        place = _place(path, dir_fd)
        trip.step("open", place)
        made = not os.path.lexists(place)
        descriptor = int(real["open"](path, flags, mode, dir_fd=dir_fd))
        trip.opened(place, descriptor, made=made, emptied=bool(flags & os.O_TRUNC))
        return descriptor

    def opened_by_name(path: Any, mode: str = "r", *args: Any, **keys: Any) -> Any:
        if isinstance(path, int):
            return fdopened(path, mode, *args, **keys)
        if not set(mode) & set("wax+"):
            return real["builtin"](path, mode, *args, **keys)
        place = _place(path, None)
        trip.step("open", place)
        made = not os.path.lexists(place)
        file = real["builtin"](path, mode, *args, **keys)
        trip.opened(place, file.fileno(), made=made, emptied="w" in mode)
        return file

    def written(descriptor: int, content: Any) -> int:
        half = trip.step_in_two("write")
        count = int(real["write"](descriptor, memoryview(content)[: len(content) // 2] if half else content))
        trip.note_file("write", descriptor, bytes(content[:count]))
        if half:
            trip.die()
        return count

    def flushed(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        trip.step("flush folder" if folder else "flush")
        real["fsync"](descriptor)
        if folder:
            trip.note("flush-folder", os.readlink(f"/proc/self/fd/{descriptor}") + os.sep)
        else:
            trip.note_file("flush", descriptor)

    def cut(descriptor: int, size: int) -> None:
        trip.step("cut")
        real["ftruncate"](descriptor, size)
        trip.note_file("cut", descriptor, size)

    def fdopened(descriptor: int, mode: str = "r", *args: Any, **keys: Any) -> Any:
        return _SteppedFile(descriptor) if "w" in mode else real["fdopen"](descriptor, mode, *args, **keys)

    def moved(name: str) -> Any:
        def move(source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
            trip.step("move", _place(target, dst_dir_fd))
            real[name](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            trip.note("move", _place(source, src_dir_fd), _place(target, dst_dir_fd))

        return move

    def linked(source: Any, target: Any, **keys: Any) -> None:
        place = _place(target, keys.get("dst_dir_fd"))
        trip.step("link", place)
        real["link"](source, target, **keys)
        trip.note("link", _place(source, keys.get("src_dir_fd")), place)

    def removed(name: str) -> Any:
        def remove(path: Any, *, dir_fd: int | None = None) -> None:
            place = _place(path, dir_fd)
            trip.step("remove", place)
            real[name](path, dir_fd=dir_fd)
            trip.note("remove", place)

        return remove

    def made_folder(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        trip.step("make folder", _place(path, dir_fd))
        real["mkdir"](path, mode, dir_fd=dir_fd)

    def whole(call: Any) -> Any:
        @functools.wraps(call)
        def locked(*args: Any, **keys: Any) -> Any:
            with trip.lock:
                return call(*args, **keys)

        return locked

    real["builtin"] = builtins.open
    builtins.open = whole(opened_by_name)
    os.open, os.write, os.fsync, os.ftruncate = whole(opened), whole(written), whole(flushed), whole(cut)
    os.fdopen = fdopened  # type: ignore[assignment]
    os.replace, os.rename, os.link = whole(moved("replace")), whole(moved("rename")), whole(linked)
    os.unlink, os.rmdir, os.mkdir = whole(removed("unlink")), whole(removed("rmdir")), whole(made_folder)
    os.remove = os.unlink
    for way, name in (("connect_ex", "connect"), ("send", "send"), ("recv", "recv")):
        setattr(socket.socket, way, _crossed(trip, name, getattr(socket.socket, way)))


def _crossed(trip: StepKiller, way: str, real: Any) -> Any:
    def cross(self: socket.socket, *args: Any) -> Any:
        if way == "recv":  # tried in vain, before there is anything to receive, it is no step
            received = real(self, *args)
            trip.step(way)
            return received
        if way == "connect":
            trip.step(way)
        elif trip.step_in_two(way):
            real(self, args[0][: len(args[0]) // 2])
            trip.die()
        return real(self, *args)

    return cross


def _one_sync(order: Order) -> None:
    os.environ.clear()
    os.environ.update(order["environ"])
    config = check_config(order["keys"])
    trip = StepKiller(
        order["at"],
        torn=order["torn"],
        folders=order["folders"],
        report=order["report"],
    )
    arm(trip)
    arm_commits(trip)
    try:
        outcome = sync_alone(config, ProgressDisplay(silent_s=float("inf")), {"do": "push"})
        ended = outcome["outcome"], ""
    except SyncdError as failure:
        ended = "failed", str(failure)
    trip.tell(ended)


def _warm_up(order: Order) -> None:
    """Do once what each fork would do again: load what is loaded late, and fill the caches of types and patterns."""
    for name in LOADED_LATE:
        import_module(name)
    httpx.Client().close()
    selection_of(check_config(order["keys"]), os.environ)
    gc.collect()
    gc.freeze()  # or each fork copies the pages of all objects as soon as it counts them


if __name__ == "__main__":
    import httpx

    from syncd.cli.own_loop import sync_alone
    from syncd.cli.progress import ProgressDisplay
    from syncd.core.errors import SyncdError
    from syncd.core.settings import check_config
    from syncd.daemon.build import selection_of

    serve(_one_sync, _warm_up)
