"""A machine that loses a process at any step, or its power, and goes on with what its disk then holds."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any

from syncd.core.directories import Directories, directories_for
from syncd.store.state_db import NAME
from tests.component.crash_worker import Event
from tests.component.forks import Forks
from tests.emulator import Emulator

KEY = "sk-key-of+the/test="
SANDBOX = "box"


class PowerCut(Enum):
    """The effect of a power cut on what was not flushed; file systems differ in it."""

    NAMES = "names are those of the last flush of their folder, contents those of the last flush of the file"
    CONTENTS = "names are there, contents that were not flushed are empty"
    ZEROS = "names are there, contents that were not flushed are zeros of their length"
    ANY = "each name and each content has an outcome of its own"


@dataclass
class ProcessResult:
    """The end of a process: `word` is its outcome, or `killed`."""

    word: str
    said: str
    steps: list[str]


@dataclass
class Disk:
    """The contents of the two folders, and what of them survives a power cut. Directories always do."""

    names: dict[str, int] = field(default_factory=dict)
    safe_names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    safe_contents: dict[int, bytes] = field(default_factory=dict)
    _last: int = 0

    def play(self, events: list[Event]) -> None:
        """Apply the events of one process."""
        files: dict[int, int] = {}
        for word, *rest in events:
            getattr(self, "_" + word.replace("-", "_"))(files, *rest)

    def _open(self, files: dict[int, int], path: str, number: int, made: bool, emptied: bool) -> None:
        if made:
            self._last += 1
            self.names[path] = self._last
            self.contents[self._last] = b""
        files[number] = self.names[path]
        if emptied:
            self.contents[self.names[path]] = b""

    def _write(self, files: dict[int, int], number: int, content: bytes) -> None:
        self.contents[files[number]] += content

    def _cut(self, files: dict[int, int], number: int, size: int) -> None:
        self.contents[files[number]] = self.contents[files[number]][:size]

    def _flush(self, files: dict[int, int], number: int) -> None:
        self.safe_contents[files[number]] = self.contents[files[number]]

    def _flush_folder(self, files: dict[int, int], folder: str) -> None:
        self.safe_names = {path: file for path, file in self.safe_names.items() if not _lies_in(path, folder)}
        self.safe_names |= {path: file for path, file in self.names.items() if _lies_in(path, folder)}

    def _move(self, files: dict[int, int], source: str, target: str) -> None:
        self.names[target] = self.names.pop(source)

    def _link(self, files: dict[int, int], source: str, target: str) -> None:
        self.names[target] = self.names[source]

    def _remove(self, files: dict[int, int], path: str) -> None:
        self.names.pop(path, None)

    def after(self, cut: PowerCut, chance: Random) -> dict[str, bytes]:
        """Return the disk after a power cut."""
        names = self.safe_names if cut is PowerCut.NAMES else self.names
        if cut is PowerCut.ANY:
            names = {}
            for path in sorted({**self.names, **self.safe_names}):
                file = chance.choice((self.names, self.safe_names)).get(path)
                if file is not None:
                    names[path] = file
        return {path: self._content(file, cut, chance) for path, file in names.items()}

    def _content(self, file: int, cut: PowerCut, chance: Random) -> bytes:
        written, safe = self.contents[file], self.safe_contents.get(file, b"")
        if written == safe:
            return safe
        if cut is PowerCut.ZEROS:
            return bytes(len(written))
        if cut is PowerCut.ANY:
            return chance.choice((written, safe, b"", bytes(len(written)), written[: len(written) // 2]))
        return safe

    def cut_power(self, folders: Iterable[str], cut: PowerCut, chance: Random) -> None:
        """Drop what was not flushed in the folders; what the state committed survives. All is flushed then."""
        found = self.after(cut, chance)
        for path in (path for folder in folders for path in Path(folder).rglob("*")):
            if not path.is_dir() and not path.is_socket() and not path.name.startswith(NAME):
                path.unlink()
        for place, content in found.items():
            Path(place).parent.mkdir(mode=0o700, exist_ok=True)  # comes back with its file, if its removal is dropped
            Path(place).write_bytes(content)
            Path(place).chmod(0o600)
        self.names = {path: number for number, path in enumerate(found, self._last + 1)}
        self._last += len(found)
        self.safe_names = dict(self.names)
        self.contents = {file: found[path] for path, file in self.names.items()}
        self.safe_contents = dict(self.contents)


def _lies_in(path: str, folder: str) -> bool:
    return os.path.dirname(path) + os.sep == folder


class Machine:
    """A workspace, its folders and its sandbox, and processes that sync and die."""

    def __init__(self, folder: Path, emulator: Emulator, forks: Forks) -> None:
        self.emulator = emulator
        self.sandbox = emulator.create_sandbox(SANDBOX)
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.environ = {
            "HOME": str(folder),
            "PATH": str(folder),  # no git, and so no user's exclude file
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "KLAVIS_API_KEY": KEY,
        }
        self.folders: Directories = directories_for(str(self.workspace), self.environ)
        self.disk = Disk()
        self._report = folder / "report"
        self._forks = forks
        self._keys: dict[str, dict[str, Any]] = {
            "workspace": {"path": str(self.workspace)},
            # Without looks and proofs each step of a sync is one of its own; a test of these sets the keys.
            "sandbox": {
                "id": SANDBOX,
                "base_url": emulator.base_url,
                "agent_changes": "overwrite",
                "deletions": "keep",
            },
            "sync": {"archive": "full"},
            "retry": {"first_delay_seconds": 0.05, "max_delay_seconds": 0.1, "give_up_after_seconds": 60},
        }

    def set(self, section: str, key: str, value: Any) -> None:
        self._keys.setdefault(section, {})[key] = value

    def sync(self, at: int = 0, *, torn: bool = False) -> ProcessResult:
        """`syncd push`, in a process of its own that is killed before its `at`-th step, or half-way through it."""
        order = {
            "keys": self._keys,
            "environ": self.environ,
            "at": at,
            "torn": torn,
            "folders": [self.folders.state, self.folders.spool],
            "report": str(self._report),
        }
        died = self._forks.died(order)
        ended, steps, events = pickle.loads(self._report.read_bytes())
        self.disk.play(events)
        assert (ended is None) is died
        return ProcessResult(*(ended or ("killed", "")), steps)

    def cut_power(self, cut: PowerCut, chance: Random) -> None:
        """Drop what was not flushed; the workspace is on another disk, and what the state committed survives."""
        self.disk.cut_power((self.folders.state, self.folders.spool), cut, chance)

    def forget_all(self) -> None:
        """Remove state and spool."""
        for folder in (self.folders.state, self.folders.spool):
            shutil.rmtree(folder, ignore_errors=True)
        self.disk = Disk()

    def written(self) -> dict[str, bytes]:
        """Return what both folders hold but for the state's database, which must equal `disk`."""
        found = {}
        for folder in (self.folders.state, self.folders.spool):
            for path in Path(folder).rglob("*"):
                if path.is_file() and not path.name.startswith(NAME):
                    found[str(path)] = path.read_bytes()
        return found
