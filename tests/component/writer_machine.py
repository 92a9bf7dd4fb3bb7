"""A workspace with every kind of change planned for it, and processes that write and die."""

from __future__ import annotations

import os
import pickle
import shutil
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

from syncd.core.clock import SystemClock
from syncd.merge.path_changes import PathChange
from syncd.merge.workspace_writer import WorkspaceWriter
from syncd.sandbox.saved_versions import SavedVersions
from syncd.store.state_db import StateDb
from tests.component.crash_machine import ProcessResult
from tests.component.forks import Forks
from tests.component.writer_crash_worker import plan_of
from tests.recorded import records

OLD_NS = 1_600_000_000_123_456_789
ODD = os.fsdecode(b"odd \xff\n name")
LONG = "n" * 255

Snapshot = dict[str, tuple[str, object, int, int]]
Change = tuple[str, list[Any] | None]


def snapshot(top: Path) -> Snapshot:
    """Return each path's kind, content, mode and, of a file or link, time."""
    found: Snapshot = {}
    for base, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(base, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, top)
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                found[relative] = ("link", os.readlink(path), 0, status.st_mtime_ns)
            elif stat.S_ISDIR(status.st_mode):
                found[relative] = ("directory", None, mode, 0)
            elif stat.S_ISREG(status.st_mode):
                found[relative] = ("file", Path(path).read_bytes(), mode, status.st_mtime_ns)
            else:
                found[relative] = ("other", None, mode, 0)
    return found


def timeless(found: Snapshot) -> Snapshot:
    """Return a snapshot without times."""
    return {path: (*entry[:3], 0) for path, entry in found.items()}


class WriterMachine:
    """A workspace and its state folder, and processes that write to it."""

    def __init__(self, folder: Path, forks: Forks | None = None) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.state = folder / "state"
        self.contents = folder / "contents"
        self.contents.mkdir()
        self._forks = forks
        self._db = StateDb(str(self.state))
        self.fresh()

    def close(self) -> None:
        """Close the state's database, which a writer in this process has open."""
        self._db.close()

    @property
    def writer(self) -> WorkspaceWriter:
        return WorkspaceWriter(str(self.workspace), self._db, SystemClock())

    @property
    def saved(self) -> SavedVersions:
        """The saved versions in the state folder."""
        return SavedVersions(self._db, SystemClock())

    def fresh(self) -> None:
        """Make workspace and state folder anew, empty."""
        self.close()
        for folder in (self.workspace, self.state):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def content(self, data: bytes) -> str:
        """Return the path of a file with this content, outside of the workspace."""
        path = self.contents / sha256(data).hexdigest()
        if not path.exists():
            path.write_bytes(data)
        return str(path)

    def file(self, path: str, data: bytes = b"old", mode: int = 0o644) -> Path:
        """Write a file with an old time into the workspace, and its directories."""
        place = self.workspace / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(mode)
        os.utime(place, ns=(OLD_NS, OLD_NS))
        return place

    def link(self, path: str, target: str) -> None:
        """Make a link with an old time."""
        place = self.workspace / path
        place.symlink_to(target)
        os.utime(place, ns=(OLD_NS, OLD_NS), follow_symlinks=False)

    def new(self, data: bytes = b"new", mode: int = 0o644) -> list[Any]:
        """Return a file for a plan."""
        return ["f", mode, "", self.content(data)]

    def plan(self, *changes: Change) -> list[PathChange]:
        """Return a plan for the workspace as it is."""
        return plan_of(self.writer, list(changes))

    def fill(self) -> None:
        """Fill the workspace with what `changes` changes, and with what it leaves."""
        self.file("changed", b"old " * 3000)
        self.file("kept/same")
        self.file("mode", mode=0o644)
        self.file("set-id", mode=0o4755)
        self.file("read-only", mode=0o444)
        self.file("gone")
        self.file("empty", b"")
        self.file(ODD)
        self.file(LONG)
        self.link("link", "kept")
        self.link("link-to-file", "kept/same")
        self.file("file-to-link")
        self.file("file-to-directory")
        self.file("directory-to-file/a")
        self.file("directory-to-file/sub/b")
        self.file("directory-to-link/a")
        self.link("link-to-directory", "kept")
        self.file("locked/a")
        (self.workspace / "locked").chmod(0o555)
        self.file("closed/in/a")
        (self.workspace / "closed/in").chmod(0o500)
        (self.workspace / "closed").chmod(0o555)
        (self.workspace / "emptied").mkdir()
        self.file("twin")
        os.link(self.workspace / "twin", self.workspace / "twin2")

    def changes(self) -> list[Change]:
        """Return every kind of change, for `fill`."""
        return [
            ("changed", self.new(b"new " * 4000)),
            ("mode", self.new(b"old", 0o755)),
            ("set-id", self.new()),
            ("read-only", self.new(mode=0o400)),
            ("gone", None),
            ("empty", self.new()),
            (ODD, self.new()),
            (LONG, self.new()),
            ("link", ["l", 0, "elsewhere", ""]),
            ("link-to-file", self.new()),
            ("file-to-link", ["l", 0, ODD, ""]),
            ("file-to-directory", ["d", 0o755, "", ""]),
            ("file-to-directory/deep", ["d", 0o555, "", ""]),
            ("file-to-directory/deep/new", self.new()),
            ("directory-to-file/a", None),
            ("directory-to-file/sub/b", None),
            ("directory-to-file/sub", None),
            ("directory-to-file", self.new()),
            ("directory-to-link/a", None),
            ("directory-to-link", ["l", 0, "kept", ""]),
            ("link-to-directory", ["d", 0o700, "", ""]),
            ("link-to-directory/new", self.new()),
            ("locked", ["d", 0o711, "", ""]),
            ("locked/a", self.new()),
            ("locked/b", self.new()),
            ("closed/in/a", None),
            ("closed/in", None),
            ("closed", None),
            ("emptied", None),
            ("twin", self.new(b"one")),
            ("new", self.new(b"")),
            ("new-link", ["l", 0, "nowhere", ""]),
            ("new-directory", ["d", 0o777, "", ""]),
            ("implied/by/this", self.new()),
            (f"named/{LONG}/{ODD}", self.new()),
        ]

    def run(
        self, changes: list[Change], at: int = 0, *, undo: bool = False, torn: bool = False, errno: int = 0
    ) -> ProcessResult:
        """Write, or undo, in a process that is killed before its `at`-th step, or half-way through it.

        With `errno` the step fails instead.
        """
        report = self.folder / "report"
        report.unlink(missing_ok=True)
        order = {
            "workspace": str(self.workspace),
            "state": str(self.state),
            "changes": changes,
            "at": at,
            "undo": undo,
            "torn": torn,
            "errno": errno,
            "report": str(report),
        }
        self._forks.died(order)
        ended, steps, _ = pickle.loads(report.read_bytes())
        return ProcessResult(*(ended or ("killed", "")), steps)

    def state_files(self) -> set[str]:
        """Return the names of the journal's files and records, and `kept` where bytes are kept for an undo."""
        return set(os.listdir(self.state / "apply")) | records(self.state) | ({"kept"} if self.kept() else set())

    def kept(self) -> list[Path]:
        """Return the files of the bytes that are kept, without those that a killed process has half written."""
        return sorted(path for path in (self.state / "blobs").glob("*") if path.suffix != ".new")
