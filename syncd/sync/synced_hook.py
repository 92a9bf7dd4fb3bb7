"""Runs the program of `sync.on_synced` after each sync that arrived, and tells it in a file what changed there.

It has no shell, 60 seconds at most, and its output is logged; the loop never waits for it. Syncs that arrive while it
runs become one more run for each sandbox, which gets all their changes; it never runs twice at a time. A reload ends no
run, and forgets nothing that one is still to be told.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
from collections.abc import Mapping
from math import inf
from typing import BinaryIO

from msgspec import Struct, field

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.clock import Clock
from syncd.core.durable_file import StateFile, Versioned, write_whole
from syncd.core.errors import SyncWarning
from syncd.core.process import original_umask
from syncd.core.settings import Config
from syncd.core.text import one_line
from syncd.model.manifest import Difference
from syncd.remote.target import Target
from syncd.sync.outcome import Change, combine

_log = logging.getLogger("syncd")
_hook_log = logging.getLogger("syncd.hook")

TIMEOUT_S = 60.0
# The daemon itself has to end within five seconds.
_END_S = 1.0
_NAME = "synced-changes.json"
_LOGGED_BYTES = 1 << 14
# Output beyond that is dropped this often, as a program that prints without end would fill the disk.
_MOST_BYTES, _DROP_EVERY_S = 1 << 24, 1.0
_LONGEST_LINE = 300
# For the daemon alone: the key, and what it needs to notify the service manager.
_WITHHELD = frozenset(
    {KEY_VARIABLE, "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM"}
)


class ToldRecord(Versioned, frozen=True, kw_only=True):
    """The sandbox that the last run which succeeded was told of, by its name in the configuration."""

    sandboxes: dict[str, str] = field(default_factory=dict)


def told_state(state_folder: str) -> StateFile[ToldRecord]:
    """Return the file of the record."""
    return StateFile(state_folder, "agent", ToldRecord, "the agent is told of its sandbox once more")


class _News(Struct, frozen=True):
    """The news that a run for the sandbox of this name is told."""

    name: str
    target: Target
    servers: Mapping[str, str]
    changes: dict[str, Change]


class _HookRun(Struct, frozen=True):
    """A run under way, whose output goes to a file without a name. `pidfd` becomes readable at its end."""

    news: _News
    process: subprocess.Popen[bytes]
    pidfd: int
    output: BinaryIO
    due_s: float


class SyncedHook:
    """Runs the program for the sandboxes of a workspace; one object a process."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = {name: value for name, value in environ.items() if name not in _WITHHELD}
        self._clock = clock
        self._command: tuple[str, ...] = ()  # of the next run
        self._config_file = self._folder = ""
        self._pending: dict[str, _News] = {}  # by sandbox, the one that waits for the longest first
        self._run: _HookRun | None = None
        self._failures: dict[str, str] = {}  # of the last run for each sandbox, if it failed

    def configure(self, config: Config, state_folder: str) -> None:
        """Let the next run be that of this configuration; one under way goes on, unless its workspace is another.

        To be called with the workspace's lock held.
        """
        if state_folder != self._folder:
            self.close()
        if config.sync.on_synced != self._command:
            self._command, self._failures = config.sync.on_synced, {}
        self._config_file, self._folder = os.path.abspath(config.file), state_folder
        self._pending = {name: news for name, news in self._pending.items() if name in config.sandboxes}
        if self._run is None:
            self._remove_changes()  # of a process that was killed

    @property
    def is_configured(self) -> bool:
        return bool(self._command)

    def arrived(self, name: str, target: Target, changes: Difference, servers: Mapping[str, str]) -> None:
        """Run the program, now or once it has ended, as a sync brought these changes to this sandbox."""
        before = self._pending.get(name)
        combined = before.changes if before and before.target.same_sandbox(target) else {}
        combine(combined, changes)
        self._pending[name] = _News(name, target, servers, combined)
        self._run_next()

    @property
    def is_running(self) -> bool:
        return self._run is not None

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to do."""
        return [] if self._run is None else [self._run.pidfd]

    @property
    def due_s(self) -> float:
        """The monotonic second at which `poll` has something to do in any case; infinity if no program runs."""
        return inf if self._run is None else min(self._run.due_s, self._clock.monotonic_s() + _DROP_EVERY_S)

    def poll(self) -> bool:
        """Handle the program's end, or end it when its time is over; return True if `warnings` may have changed."""
        run = self._run
        if run is None:
            return False
        code, failure = run.process.poll(), ""
        if code is None and self._clock.monotonic_s() < run.due_s:
            if os.fstat(run.output.fileno()).st_blocks * 512 > _MOST_BYTES:
                run.output.truncate(0)  # it goes on at its place: what is before takes no room
            return False
        if code is None:
            failure = f"took longer than {TIMEOUT_S:.0f} s and was ended"
            self._end(run, signal.SIGKILL)
        elif code:
            failure = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        self._close(run)
        self._failures[run.news.name] = failure
        if not failure:
            self._note_told(run.news)
        self._run_next()
        return True

    def close(self) -> None:
        """End a running program, with all processes of its group, and forget what waits for the next one."""
        if self._run is not None:
            self._end(self._run, signal.SIGTERM, signal.SIGKILL)
            self._close(self._run)
        self._pending = {}

    def warnings(self, name: str) -> list[SyncWarning]:
        """The warning about the last run for this sandbox that has ended, if it failed."""
        failure = self._failures.get(name)
        if not failure:
            return []
        what = f"sync.on_synced {failure}; it is run again after the next sync"
        remedy = "correct it, or sync.on_synced with `syncd config edit`; its output is in syncd's log"
        return [SyncWarning("synced:hook", what, remedy)]

    def _run_next(self) -> None:
        import tempfile  # noqa: PLC0415 - where a program is configured

        while self._command and self._run is None and self._pending:
            name, news = next(iter(self._pending.items()))
            try:
                self._write_changes(news)
                output = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - open until the program has ended
            except OSError as failure:  # the next run tells of these changes too
                self._failures[name] = f"is not run, as its file cannot be written ({failure.strerror})"
                return
            del self._pending[name]
            _log.info("running sync.on_synced")
            try:
                process = self._start(output)
            except (OSError, ValueError) as failure:
                output.close()
                reason = getattr(failure, "strerror", None) or failure
                self._failures[name] = f"cannot be started ({self._command[0]}: {reason})"
            else:
                pidfd = os.pidfd_open(process.pid)
                self._run = _HookRun(news, process, pidfd, output, self._clock.monotonic_s() + TIMEOUT_S)

    def _start(self, output: BinaryIO) -> subprocess.Popen[bytes]:
        """Start the program, without a shell. Raises `OSError`, `ValueError`."""
        home = os.path.expanduser("~")
        return subprocess.Popen(
            [os.path.expanduser(self._command[0]), *self._command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home if os.path.isdir(home) else "/",
            env={**self._environ, "SYNCD_CONFIG": self._config_file, "SYNCD_CHANGES": self._changes_file},
            start_new_session=True,
            umask=original_umask(),  # its files get the person's permissions, not the daemon's
        )

    def _end(self, run: _HookRun, *signals: signal.Signals) -> None:
        """Send its process group these signals, one after the other, until it has ended."""
        for number in signals:
            with contextlib.suppress(OSError):
                os.killpg(run.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(_END_S)

    def _close(self, run: _HookRun) -> None:
        """Log the last of what it printed, without the servers' URLs."""
        self._run = None
        self._remove_changes()
        os.close(run.pidfd)
        with run.output as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - _LOGGED_BYTES))
            text = output.read(_LOGGED_BYTES).lstrip(b"\0").decode("utf-8", "backslashreplace")
        for name, url in run.news.servers.items():
            text = text.replace(url, f"[URL of {name}]")
        for line in filter(str.strip, text.split("\n")):
            _hook_log.info("on_synced: %s", one_line(line, _LONGEST_LINE))

    @property
    def _changes_file(self) -> str:
        return os.path.join(self._folder, _NAME)

    def _write_changes(self, news: _News) -> None:
        """Write the file for the next run. Raises `OSError`."""
        document: dict[str, object] = {
            "sandbox": news.name,
            "sandbox_id": news.target.sandbox_id,
            "sandbox_changed": self._told().get(news.name) != news.target.owner,
            "mcp_servers": news.servers,
            **{kind.value: [path for path, change in news.changes.items() if change is kind] for kind in Change},
        }
        write_whole(self._changes_file, f"{json.dumps(document)}\n".encode())

    def _remove_changes(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._changes_file)

    def _told(self) -> dict[str, str]:
        return (told_state(self._folder).load() or ToldRecord()).sandboxes

    def _note_told(self, news: _News) -> None:
        told = self._told()
        if told.get(news.name) != news.target.owner:
            with contextlib.suppress(OSError):  # then the next run is told of its sandbox once more
                told_state(self._folder).save(ToldRecord(sandboxes={**told, news.name: news.target.owner}))
