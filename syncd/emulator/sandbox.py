"""A sandbox on disk: a workspace that is filled, emptied and dumped, with its executions and its expiry."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import threading
import uuid
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from syncd.core.clock import Clock
from syncd.emulator.execution import Execution
from syncd.emulator.extract import ArchiveRefused, Bounds, extract

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RECORD = "sandbox.json"


class Busy(Exception):
    """The execution with this name still runs."""


@dataclass
class SandboxRecord:
    """The stored data of a sandbox; times in seconds since 1970, `expires_at_s` None: never."""

    id: str
    created_at_s: float
    expires_at_s: float | None = None
    servers: list[str] = field(default_factory=list)
    benchmark: str | None = None
    status: str = "occupied"


class Sandbox:
    """One sandbox. Its operations exclude each other; executions run in parallel."""

    def __init__(self, folder: Path, record: SandboxRecord, clock: Clock, execution_timeout_s: float) -> None:
        self.record = record
        self.folder = folder
        self.workspace = folder / "workspace"
        self._clock = clock
        self._execution_timeout_s = execution_timeout_s
        self._lock = threading.Lock()
        self._executions: dict[str, Execution] = {}
        self._held: list[Execution] | None = None

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def status(self) -> str:
        """`idle`, `occupied` or `error`."""
        return self.record.status

    def save(self) -> None:
        """Write the record, so that a restart finds the sandbox."""
        self.workspace.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{_RECORD}.new"
        draft.write_text(json.dumps(self.record.__dict__), encoding="utf-8")
        os.replace(draft, self.folder / _RECORD)

    def initialize(self, packed: BinaryIO, bounds: Bounds) -> int:
        """Extract a tar.gz into the workspace; its number of members. ArchiveRefused, OSError: status `error`."""
        with self._lock:
            try:
                count = extract(packed, str(self.workspace), bounds)
            except (ArchiveRefused, OSError):
                self._set_status("error")
                raise
            self._set_status("occupied")
            return count

    def dump(self, file: BinaryIO) -> None:
        """Write the workspace as a tar.gz with names such as `./a.txt` and an entry for `.` itself."""
        with self._lock, tarfile.open(fileobj=file, mode="w:gz", compresslevel=1, errors="surrogateescape") as tar:
            tar.add(self.workspace, arcname=".")

    def reset(self) -> None:
        """Empty the workspace and remove executions."""
        with self._lock:
            self._end_executions()
            self._empty()
            self._set_status("occupied")

    def empty(self) -> None:
        """Empty the workspace; executions continue."""
        with self._lock:
            self._empty()

    def execute(self, name: str, packed: BinaryIO, bounds: Bounds) -> None:
        """Extract an execution's archive and start its main.py. Raises Busy, ArchiveRefused or OSError."""
        with self._lock:
            previous = self._executions.get(name)
            if previous is not None:
                if not previous.ended:
                    raise Busy
                self._executions.pop(name).close()
            folder = self.folder / "executions" / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            extract(packed, str(folder), bounds)
            execution = Execution(str(folder), str(self.workspace), self._clock, self._execution_timeout_s)
            self._executions[name] = execution
            if self._held is None:
                execution.start()
            else:
                execution.enqueue()
                self._held.append(execution)

    @property
    def holds(self) -> bool:
        """True if executions stay pending."""
        return self._held is not None

    def hold(self) -> None:
        """Keep executions that are requested from now on pending."""
        with self._lock:
            self._held = []

    def start_held(self) -> None:
        """Start the pending executions, and hold no more."""
        with self._lock:
            held, self._held = self._held, None
            for execution in held or ():
                execution.begin()

    def execution(self, name: str) -> Execution | None:
        """The execution with this name, None if there was none."""
        return self._executions.get(name)

    def wait(self) -> None:
        """Wait until all executions have ended."""
        for execution in list(self._executions.values()):
            execution.wait()

    def export(self, name: str, file: BinaryIO) -> None:
        """Write an execution's folder as a zip."""
        folder = self.folder / "executions" / name
        with self._lock, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    archive.write(path, path.relative_to(folder).as_posix())

    def close(self) -> None:
        """Kill its executions; its files stay."""
        with self._lock:
            self._end_executions()

    def remove(self) -> None:
        """Kill its executions and delete its files."""
        self.close()
        with suppress(OSError):
            _remove(str(self.folder))

    def _empty(self) -> None:
        for entry in os.scandir(self.workspace):
            if entry.is_dir(follow_symlinks=False):
                _remove(entry.path)
            else:
                os.unlink(entry.path)

    def _set_status(self, status: str) -> None:
        if self.record.status != status:
            self.record.status = status
            self.save()

    def _end_executions(self) -> None:
        for execution in self._executions.values():
            execution.close()
        self._executions.clear()


def _remove(folder: str) -> None:
    """Remove the folder, with read-only folders in it. Raises `OSError`."""
    for base, names, _ in os.walk(folder):
        for path in (base, *(os.path.join(base, name) for name in names)):
            if not os.path.islink(path):
                os.chmod(path, 0o700)  # before os.walk enters it
    shutil.rmtree(folder)


class Sandboxes:
    """All sandboxes under one folder. An expired one is removed when it is next requested."""

    def __init__(self, folder: Path, clock: Clock, execution_timeout_s: float) -> None:
        self._folder = folder
        self._clock = clock
        self._execution_timeout_s = execution_timeout_s
        self._lock = threading.Lock()
        self._by_id: dict[str, Sandbox] = {}

    def load(self) -> None:
        """Load the sandboxes of an earlier run."""
        self._folder.mkdir(exist_ok=True)
        for record in sorted(self._folder.glob(f"*/{_RECORD}")):
            # A record that cannot be read is of a sandbox that was not completely created.
            with suppress(ValueError, TypeError):
                self._add(SandboxRecord(**json.loads(record.read_text(encoding="utf-8"))))

    def create(
        self,
        sandbox_id: str | None = None,
        servers: Sequence[str] = (),
        ttl_s: float | None = None,
        benchmark: str | None = None,
    ) -> Sandbox:
        """A new sandbox, or the existing one with this id. ValueError for an id that is not a plain name."""
        name = sandbox_id if sandbox_id is not None else uuid.uuid4().hex
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a sandbox id: use letters, digits, '.', '_' and '-'")
        with self._lock:
            if name in self._by_id:
                return self._by_id[name]
            now_s = self._clock.wall_s()
            ends_s = None if ttl_s is None else now_s + ttl_s
            sandbox = self._add(SandboxRecord(name, now_s, ends_s, list(servers), benchmark))
        sandbox.save()
        return sandbox

    def find(self, sandbox_id: str) -> Sandbox | None:
        """The sandbox with this id, None if there is none or it has expired."""
        with self._lock:
            sandbox = self._by_id.get(sandbox_id)
        if sandbox is not None and self._expired(sandbox):
            self.release(sandbox_id)
            return None
        return sandbox

    def all(self) -> list[Sandbox]:
        """The sandboxes that have not expired, oldest first."""
        with self._lock:
            ids = sorted(self._by_id, key=lambda name: self._by_id[name].record.created_at_s)
        return [sandbox for name in ids if (sandbox := self.find(name)) is not None]

    def release(self, sandbox_id: str) -> None:
        """Remove the sandbox with its files, if there is one."""
        with self._lock:
            sandbox = self._by_id.pop(sandbox_id, None)
        if sandbox is not None:
            sandbox.remove()

    def close(self) -> None:
        """Kill all executions; files stay."""
        for sandbox in self._by_id.values():
            sandbox.close()

    def _add(self, record: SandboxRecord) -> Sandbox:
        sandbox = Sandbox(self._folder / record.id, record, self._clock, self._execution_timeout_s)
        self._by_id[record.id] = sandbox
        return sandbox

    def _expired(self, sandbox: Sandbox) -> bool:
        ends_s = sandbox.record.expires_at_s
        return ends_s is not None and self._clock.wall_s() >= ends_s
