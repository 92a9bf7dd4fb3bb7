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
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.clock import Clock
from syncd.core.durable_file import StateFile, Versioned, write_whole
from syncd.core.errors import SyncWarning
from syncd.core.hardening import original_umask
from syncd.core.settings import Config
from syncd.core.text import one_line
from syncd.model.manifest import Difference
from syncd.remote.target import Target
from syncd.sandbox.mcp_servers import callable_servers
from syncd.sync.outcome import Change, combine

_log = logging.getLogger("syncd")
_hook_log = logging.getLogger("syncd.hook")

TIMEOUT_S = 60.0
# The daemon itself has to end within five seconds.
_END_S = 1.0
_NAME = "synced-changes.json"
_LOGGED_BYTES = 1 << 14
_LONGEST_LINE = 300
_PIPE_BYTES = 1 << 16
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


class _News(Struct):
    """The news that the next run for a sandbox is told."""

    target: Target
    servers: Mapping[str, str]
    changes: dict[str, Change]

    @property
    def sandbox(self) -> str:
        return f"{self.target.base_url} {self.target.sandbox_id}"


class SyncedHook:
    """Runs the program for the sandboxes of a workspace; one object a process."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = {name: value for name, value in environ.items() if name not in _WITHHELD}
        self._clock = clock
        self._command: tuple[str, ...] = ()  # of the next run
        self._config_file = self._folder = ""
        self._pending: dict[str, _News] = {}  # by sandbox, the one that waits for the longest first
        self._run: _Run | None = None
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

    def arrived(self, name: str, target: Target | None, changes: Difference | None, servers: Mapping[str, str]) -> None:
        """Run the program, now or once it has ended, if the sync brought changes to this sandbox; None: it did not."""
        if not self._command or target is None or changes is None:
            return
        before = self._pending.get(name)
        combined = before.changes if before and before.target.same_sandbox(target) else {}
        combine(combined, changes)
        self._pending[name] = _News(target, callable_servers(servers), combined)
        self._run_next()

    @property
    def is_running(self) -> bool:
        return self._run is not None

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to do."""
        return [] if self._run is None else self._run.filenos()

    @property
    def due_s(self) -> float | None:
        """The monotonic second at which the program's time is over; None if it does not run."""
        return None if self._run is None else self._run.due_s

    def poll(self) -> bool:
        """Handle the program's output and end; return True if `warnings` may have changed."""
        run = self._run
        failure = None if run is None else run.poll(self._clock.monotonic_s())
        if run is None or failure is None:
            return False
        self._run = None
        self._failures[run.name] = failure
        self._remove_changes()
        if not failure:
            self._note_told(run)
        self._run_next()
        return True

    def close(self) -> None:
        """End a running program, and forget what waits for the next one."""
        if self._run is not None:
            self._run.end()
            self._run = None
            self._remove_changes()
        self._pending = {}

    def warnings(self, name: str) -> list[SyncWarning]:
        """The warning about the last run for this sandbox that has ended, if it failed."""
        failure = self._failures.get(name)
        if not failure:
            return []
        what = f"sync.on_synced {failure}; it is run again after the next sync"
        return [SyncWarning("synced:hook", what, "see its output in the log, then change the command")]

    def _run_next(self) -> None:
        while self._command and self._run is None and self._pending:
            name, news = next(iter(self._pending.items()))
            try:
                self._write_changes(name, news)
            except OSError as failure:  # the next run tells of these changes too
                self._failures[name] = f"is not run, as its file cannot be written ({failure.strerror})"
                return
            del self._pending[name]
            _log.info("running sync.on_synced")
            environ = {**self._environ, "SYNCD_CONFIG": self._config_file, "SYNCD_CHANGES": self._changes_file}
            try:
                self._run = _Run(name, news, self._command, environ, self._clock.monotonic_s())
            except (OSError, ValueError) as failure:
                self._failures[name] = f"cannot be started ({getattr(failure, 'strerror', None) or failure})"

    @property
    def _changes_file(self) -> str:
        return os.path.join(self._folder, _NAME)

    def _write_changes(self, name: str, news: _News) -> None:
        """Write the file for the next run. Raises `OSError`."""
        document: dict[str, object] = {
            "sandbox": name,
            "sandbox_id": news.target.sandbox_id,
            "sandbox_changed": self._told().get(name) != news.sandbox,
            "mcp_servers": news.servers,
            **{kind.value: [path for path, change in news.changes.items() if change is kind] for kind in Change},
        }
        write_whole(self._changes_file, f"{json.dumps(document)}\n".encode())

    def _remove_changes(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._changes_file)

    def _told(self) -> dict[str, str]:
        return (told_state(self._folder).load() or ToldRecord()).sandboxes

    def _note_told(self, run: _Run) -> None:
        told = self._told()
        if told.get(run.name) != run.sandbox:
            with contextlib.suppress(OSError):  # then the next run is told of its sandbox once more
                told_state(self._folder).save(ToldRecord(sandboxes={**told, run.name: run.sandbox}))


class _Run:
    """A run of a person's own program for the sandbox of this `name`: without a shell, its output in the log.

    Nobody waits for it: one descriptor becomes readable at its end (pidfd_open(2)), another with its output.
    """

    def __init__(
        self, name: str, news: _News, command: Sequence[str], environ: Mapping[str, str], now_s: float
    ) -> None:
        """Start the program. Raises `OSError`, `ValueError`."""
        home = os.path.expanduser("~")
        self._process = subprocess.Popen(
            [os.path.expanduser(command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=home if os.path.isdir(home) else "/",
            env=environ,
            start_new_session=True,
            umask=original_umask(),  # its files get the person's permissions, not the daemon's
        )
        assert self._process.stdout is not None  # noqa: S101 - a pipe, as requested above
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._pidfd = os.pidfd_open(self._process.pid)
        self.name, self.sandbox, self._servers = name, news.sandbox, news.servers
        self._said = b""
        self.due_s = now_s + TIMEOUT_S

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to do."""
        return [self._pidfd] if self._output.closed else [self._pidfd, self._output.fileno()]

    def poll(self, now_s: float) -> str | None:
        """Take its output, and end it when its time is over; once it has ended, return what failed, or an empty text.

        Nothing may be called after its end.
        """
        has_ended = self._has_ended(0)
        self._read()  # what it printed before its end; a process that it left running may hold the pipe open
        if has_ended:
            code = self._process.wait()
            self._close()
            return f"was ended by signal {-code}" if code < 0 else f"ended with {code}" if code else ""
        if now_s < self.due_s:
            return None
        self._kill()
        return f"took longer than {TIMEOUT_S:.0f} s and was ended"

    def end(self) -> None:
        """End it now, with all processes of its group."""
        self._signal(signal.SIGTERM)
        self._has_ended(_END_S)
        self._kill()

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, number)

    def _has_ended(self, wait_s: float) -> bool:
        return bool(select.select([self._pidfd], [], [], wait_s)[0])

    def _read(self) -> None:
        """Keep the last of what it printed."""
        if self._output.closed:
            return
        with contextlib.suppress(BlockingIOError):
            block = os.read(self._output.fileno(), _PIPE_BYTES)
            self._said = (self._said + block)[-_LOGGED_BYTES:]
            if not block:
                self._output.close()  # at its end it would stay readable

    def _close(self) -> None:
        """Log what it printed, without the servers' URLs."""
        self._output.close()
        os.close(self._pidfd)
        text = self._said.decode("utf-8", "backslashreplace")
        for name, url in self._servers.items():
            text = text.replace(url, f"[URL of {name}]")
        for line in filter(str.strip, text.split("\n")):
            _hook_log.info("on_synced: %s", one_line(line, _LONGEST_LINE))
