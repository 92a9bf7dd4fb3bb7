"""A sandbox on disk: a workspace that is filled, emptied and dumped, with its executions and its expiry.

An execution runs an uploaded `main.py` beside the workspace, as the service does: the only way to remove single files
there. The program was uploaded by the key's owner and runs as this user, without isolation: it does not get our
environment, its time and what is told of its output are limited, and its whole process group ends with it.
"""

from __future__ import annotations

import codecs
import gzip
import os
import re
import select
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
from msgspec import Struct, field

from syncd.archive.extraction import remove_folder
from syncd.core.clock import Clock
from syncd.core.durable_file import read_file, write_whole
from syncd.emulator.extract import ArchiveRefused, extract

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# The directories of so many ended executions are kept for an export, so that a long life fills no disk.
KEPT_RUNS = 20
MAX_LOG_BYTES = 8 * 1024**2
_RECORD = "sandbox.json"

Shape = TypeVar("Shape")


class Busy(Exception):
    """The execution with this name has not ended yet."""


class RunStatus(StrEnum):
    """The status of an execution."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class Execution:
    """One run of `folder`/main.py, with `workspace` in AGENT_WORKSPACE; at most `timeout_s` long."""

    timeout_s = 300.0

    def __init__(self, folder: str, workspace: str) -> None:
        self.folder = folder
        self.status = RunStatus.PENDING
        self._workspace = workspace
        self._log = f"{folder}.log"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self.run, name="emulator-execution")

    def start(self) -> None:
        """Run it, in a thread of its own."""
        self._thread.start()

    def kill(self) -> None:
        """Kill it if it still runs, with its child processes; one that is pending does not begin any more."""
        with self._lock:
            self._closing = True
            if self._process is not None and self._process.returncode is None:
                _kill(self._process)

    def wait(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()

    def delete_log(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._log)

    @property
    def ended(self) -> bool:
        return self.status in (RunStatus.COMPLETED, RunStatus.FAILED)

    def logs(self, cursor: int) -> tuple[str, int]:
        """The text from byte `cursor` on, and the cursor after it; characters are never split."""
        ended = self.ended
        data = b""
        # There is none before it begins, and if it has just been started again, the new one has another log.
        with suppress(FileNotFoundError), open(self._log, "rb") as file:
            file.seek(cursor)
            data = file.read(max(0, MAX_LOG_BYTES - cursor))
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data, final=ended)
        return text, cursor + len(data) - len(decoder.getstate()[0])

    def run(self) -> None:
        code = 1
        with open(self._log, "ab", buffering=0) as log:
            try:
                code = self.run_program(log.fileno())
            except TimeoutError:
                log.write(f"\nmain.py was killed: still running after {self.timeout_s:g} s\n".encode())
            except OSError as error:
                log.write(f"could not run main.py: {error.strerror}\n".encode())
        self.status = RunStatus.FAILED if code else RunStatus.COMPLETED

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the program."""
        return {
            "AGENT_WORKSPACE": self._workspace,
            "HOME": self.folder,
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
        }

    def run_program(self, log: int) -> int:
        """Run it to its end with its output to this descriptor, and return its exit code. Raises `TimeoutError`."""
        with self._lock:
            if self._closing:
                return 1
            self.status = RunStatus.RUNNING
            self._process = process = subprocess.Popen(
                [sys.executable, "-S", "main.py"],  # without our packages: what it imports has to be sent
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(end, select.POLLIN)
            if not poll.poll(self.timeout_s * 1000):
                raise TimeoutError
        finally:
            os.close(end)
            # With its children, which might still change the workspace. It is not reaped yet, so its id is its own.
            _kill(process)
            code = process.wait()
        return code


class SandboxRecord(Struct):
    """The stored data of a sandbox; times in seconds since 1970, `expires_at_s` None: never."""

    id: str
    created_at_s: float
    expires_at_s: float | None = None
    servers: list[str] = field(default_factory=list)
    benchmark: str | None = None
    status: str = "occupied"  # or "idle", "error"


class EmulatedSandbox:
    """One sandbox. What fills, empties and dumps its workspace excludes each other.

    Executions exclude nothing, as in a pod: they start, run and are exported while an archive is extracted.
    """

    def __init__(self, folder: Path, record: SandboxRecord) -> None:
        self.record = record
        self.folder = folder
        self.workspace = folder / "workspace"
        self._workspace_lock = threading.Lock()
        self._executions_lock = threading.Lock()
        self._executions: dict[str, Execution] = {}

    @property
    def id(self) -> str:
        return self.record.id

    def save(self) -> None:
        """Write the record, so that a restart finds the sandbox."""
        self.workspace.mkdir(parents=True, exist_ok=True)
        write_whole(str(self.folder / _RECORD), msgspec.json.encode(self.record))

    def initialize(self, packed: BinaryIO) -> None:
        """Extract a tar.gz into the workspace. ArchiveRefused, OSError: status `error`."""
        with self._workspace_lock:
            try:
                self.fill(packed)
            except (ArchiveRefused, OSError):
                self._set_status("error")
                raise
            self._set_status("occupied")

    def fill(self, packed: BinaryIO) -> None:
        """Extract into the workspace; the caller excludes others."""
        extract(packed, str(self.workspace))

    def dump(self, file: BinaryIO) -> None:
        """Write the workspace as a tar.gz with names such as `./a.txt` and an entry for `.` itself."""
        with self._workspace_lock:
            _pack(str(self.workspace), file)

    def reset(self) -> None:
        """Empty the workspace and remove executions."""
        with self._workspace_lock:
            self.close()
            self.remove_runs()
            self.empty()
            self._set_status("occupied")

    def empty(self) -> None:
        """Empty the workspace; the caller excludes others."""
        for entry in os.scandir(self.workspace):
            if entry.is_dir(follow_symlinks=False):
                remove_folder(entry.path)
            else:
                os.unlink(entry.path)

    def execute(self, name: str, packed: BinaryIO) -> None:
        """Extract an execution's archive into a new directory, and run its main.py there.

        Raises Busy, ArchiveRefused or OSError.
        """
        with self._executions_lock:
            previous = self._executions.get(name)
            if previous is not None:
                if not previous.ended:
                    raise Busy
                previous.delete_log()
                remove_folder(previous.folder)
                del self._executions[name]
            folder = self._new_run(name)
            try:
                extract(packed, folder)
            except BaseException:
                remove_folder(folder)
                raise
            execution = self._executions[name] = self.new_execution(folder)
            execution.start()

    def new_execution(self, folder: str) -> Execution:
        """The execution of the main.py in this folder, which is not started yet."""
        return Execution(folder, str(self.workspace))

    def execution(self, name: str) -> Execution | None:
        """The last execution with this name, None if there was none."""
        return self._executions.get(name)

    def export(self, execution: Execution, file: BinaryIO) -> None:
        """Write the directory of an ended execution as a tar.gz, with names as of a dump.

        Raises LookupError if the directory has been deleted since, and OSError.
        """
        with self._executions_lock:
            if not os.path.isdir(execution.folder):
                raise LookupError(execution.folder)
            _pack(execution.folder, file)

    def close(self) -> None:
        with self._executions_lock:
            for execution in self._executions.values():
                execution.kill()
            for execution in self._executions.values():
                execution.wait()
            self._executions.clear()

    def remove(self) -> None:
        self.close()
        remove_folder(str(self.folder))

    def remove_runs(self) -> None:
        """Delete the directories and logs of executions that are not known any more, such as an earlier process's."""
        remove_folder(str(self.folder / "executions"))

    def _new_run(self, name: str) -> str:
        """A new directory for an execution; those of the oldest ended ones are deleted."""
        ended = [execution.folder for execution in self._executions.values() if execution.ended]
        for folder in [folder for folder in ended if os.path.isdir(folder)][:-KEPT_RUNS]:
            remove_folder(folder)
        parent = self.folder / "executions"
        parent.mkdir(exist_ok=True)
        return tempfile.mkdtemp(prefix=f"{name}-", dir=parent)

    def _set_status(self, status: str) -> None:
        if self.record.status != status:
            self.record.status = status
            self.save()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def read_record(path: Path, shape: type[Shape]) -> Shape | None:
    """Return the record of an earlier run; None if there is none that is whole."""
    try:
        return msgspec.json.decode(read_file(str(path)), type=shape)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _pack(folder: str, file: BinaryIO) -> None:
    """Write the folder as a tar.gz, with all kinds of files but sockets, and an entry for `.` itself."""
    # Without a time of its own gzip takes the clock's, and fails where that is before 1970 or after 2106.
    with (
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", errors="surrogateescape") as tar,
    ):
        tar.add(folder, arcname=".")


class Sandboxes:
    """All sandboxes under one folder, made by `new`. An expired one is removed when it is next requested."""

    def __init__(self, folder: Path, clock: Clock, new: Callable[[Path, SandboxRecord], EmulatedSandbox]) -> None:
        self._folder = folder
        self._clock = clock
        self._new = new
        self._lock = threading.Lock()
        self._by_id: dict[str, EmulatedSandbox] = {}

    def load(self) -> None:
        self._folder.mkdir(exist_ok=True)
        for folder in sorted(self._folder.iterdir()):
            record = read_record(folder / _RECORD, SandboxRecord)
            # A record that cannot be read is of a sandbox that was not completely created.
            if record is not None:
                self._add(record).remove_runs()

    def create(
        self,
        sandbox_id: str | None = None,
        servers: Sequence[str] = (),
        ttl_s: float | None = None,
        benchmark: str | None = None,
    ) -> EmulatedSandbox:
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

    def find(self, sandbox_id: str) -> EmulatedSandbox | None:
        """The sandbox with this id, None if there is none or it has expired."""
        with self._lock:
            sandbox = self._by_id.get(sandbox_id)
        if sandbox is not None and self._expired(sandbox):
            self.release(sandbox_id)
            return None
        return sandbox

    def all(self) -> list[EmulatedSandbox]:
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
        for sandbox in self._by_id.values():
            sandbox.close()

    def _add(self, record: SandboxRecord) -> EmulatedSandbox:
        sandbox = self._by_id[record.id] = self._new(self._folder / record.id, record)
        return sandbox

    def _expired(self, sandbox: EmulatedSandbox) -> bool:
        ends_s = sandbox.record.expires_at_s
        return ends_s is not None and self._clock.wall_s() >= ends_s
