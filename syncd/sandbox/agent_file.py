"""Writes the MCP servers' URLs to a file for the agent, and remembers what the agent was notified of.

A person's file is never overwritten: a file is replaced only while it is, byte for byte, what syncd wrote there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os

from msgspec import Struct

from syncd.core.durable_file import StateFile, Versioned, read_file
from syncd.core.warning import SyncWarning
from syncd.sandbox.hook_rules import HookRun

_log = logging.getLogger("syncd.agent")
_LARGEST = 1 << 20
_KEY = "agent:file"


class _AgentRecord(Versioned, frozen=True, kw_only=True):
    told: HookRun | None
    seals: list[str]


class AgentNotes:
    """The record that outlives the process: the hook's last run, and the digests of what syncd wrote to the file."""

    def __init__(self, folder: str) -> None:
        self._file = StateFile(folder, "agent", _AgentRecord, "the agent is told of its sandbox once more")
        self.last_run: HookRun | None = None
        self.digests: list[str] = []

    def recall(self) -> None:
        """Read what an earlier process noted, if it makes sense."""
        record = self._file.load()
        if record is not None:
            self.last_run, self.digests = record.told, record.seals

    def record_run(self, run: HookRun) -> None:
        """Keep the hook's last run; if that fails, a restart may run the hook once more."""
        self.last_run = run
        with contextlib.suppress(OSError):
            self._save()

    def record_digests(self, digests: list[str]) -> None:
        """Keep the digests. Raises `OSError`: a file without a known digest could never be replaced."""
        self.digests = digests
        self._save()

    def _save(self) -> None:
        self._file.save(_AgentRecord(told=self.last_run, seals=self.digests))


class AgentFile(Struct):
    """The file at `path`, 0600 and always whole."""

    path: str
    notes: AgentNotes

    def write(self, text: str) -> SyncWarning | None:
        """Write the text if the file does not hold it; return a warning if that is not possible."""
        content = text.encode()
        try:
            current = self._read()
            if current == content:
                return None
            if current is not None and _digest(current) not in self.notes.digests:
                return SyncWarning(
                    _KEY,
                    f"{self.path} is left as it is: syncd did not write what it holds",
                    "move it away, or name another file in sandbox.mcp_file",
                )
            # Before the file: after a crash between the two, the next process must know the file as syncd's.
            self.notes.record_digests([*([] if current is None else [_digest(current)]), _digest(content)])
            self._replace(content)
        except OSError as failure:
            return SyncWarning(
                _KEY,
                f"the MCP servers cannot be written to {self.path} ({failure.strerror or failure})",
                "name a file in a folder that syncd may write to; for a service, in its state folder",
            )
        _log.info("wrote the MCP servers to %s", self.path)
        return None

    def _read(self) -> bytes | None:
        try:
            return read_file(self.path, _LARGEST)
        except FileNotFoundError:
            os.stat(os.path.dirname(self.path))
            return None

    def _replace(self, content: bytes) -> None:
        folder, name = os.path.split(self.path)
        temporary = os.path.join(folder, f".{name}.syncd-new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # left by a killed process
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
