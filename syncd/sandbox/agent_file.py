"""The file with the MCP servers' URLs, for an agent to read, and the notes about what the agent was told.

A file of a person's is never overwritten: one is replaced only while it is, byte for byte, what syncd wrote there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from dataclasses import dataclass

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
    """What outlives the process: of which sandbox the agent was told, and what our file held."""

    def __init__(self, folder: str) -> None:
        self._file = StateFile(folder, "agent", _AgentRecord, "the agent is told of its sandbox once more")
        self.told: HookRun | None = None
        self.seals: list[str] = []

    def recall(self) -> None:
        """Read what an earlier process noted, if it makes sense."""
        record = self._file.load()
        if record is not None:
            self.told, self.seals = record.told, record.seals

    def record_run(self, told: HookRun) -> None:
        """Keep it; where that fails, a restart may run the hook once more."""
        self.told = told
        with contextlib.suppress(OSError):
            self._save()

    def note_seals(self, seals: list[str]) -> None:
        """Keep it. Raises `OSError`: a file that is not known to be ours could never be replaced."""
        self.seals = seals
        self._save()

    def _save(self) -> None:
        self._file.save(_AgentRecord(told=self.told, seals=self.seals))


@dataclass
class AgentFile:
    """The file at `path`, 0600 and always whole."""

    path: str
    notes: AgentNotes

    def write(self, text: str) -> SyncWarning | None:
        """See that it holds the text; what was in the way, if something was."""
        content = text.encode()
        try:
            there = self._there()
            if there == content:
                return None
            if there is not None and _seal(there) not in self.notes.seals:
                return SyncWarning(
                    _KEY,
                    f"{self.path} is left as it is: syncd did not write what it holds",
                    "move it away, or name another file in sandbox.mcp_file",
                )
            # Before the file: a process that dies between the two must still know its own.
            self.notes.note_seals([*([] if there is None else [_seal(there)]), _seal(content)])
            self._replace(content)
        except OSError as failure:
            return SyncWarning(
                _KEY,
                f"the MCP servers cannot be written to {self.path} ({failure.strerror or failure})",
                "name one in a folder that is there and that syncd may write to, as a service its state folder",
            )
        _log.info("wrote the MCP servers to %s", self.path)
        return None

    def _there(self) -> bytes | None:
        try:
            return read_file(self.path, _LARGEST)
        except FileNotFoundError:
            os.stat(os.path.dirname(self.path))
            return None

    def _replace(self, content: bytes) -> None:
        folder, name = os.path.split(self.path)
        draft = os.path.join(folder, f".{name}.syncd-new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)  # a killed process left it
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise


def _seal(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
