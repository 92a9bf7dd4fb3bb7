"""Runs the program of `sync.on_synced` after each sync that arrived, and tells it in a file what changed there.

It has no shell, 60 seconds at most, and its output is logged; the loop never waits for it. Syncs that arrive while it
runs become one more run, which gets all their changes. It never runs twice at a time, for two sandboxes neither. A
reload ends no run, and forgets nothing that one is still to be told.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.clock import Clock
from syncd.core.durable_file import StateFile, Versioned
from syncd.core.errors import SyncWarning
from syncd.core.hardening import original_umask
from syncd.core.settings import MAIN, Config
from syncd.core.text import one_line
from syncd.model.manifest import Difference
from syncd.remote.target import Target
from syncd.sandbox.mcp_servers import callable_servers
from syncd.sync.outcome import Change, CombinedChanges

_log = logging.getLogger("syncd")
_hook_log = logging.getLogger("syncd.hook")

TIMEOUT_S = 60.0
# Between SIGTERM and SIGKILL.
GRACE_S = 2.0
# The daemon itself has to end within five seconds.
_END_S = 1.0
_NAME = "synced-changes.json"
# So many paths are encoded at once: a first sync may have a million.
_BATCH = 10_000
_MOST_LINES = 100
_LONGEST_LINE = 300
_BLOCK = 1 << 16
# A busy loop does not read, and the program should not wait for it (pipe(7): the maximum without privileges).
_PIPE_BYTES = 1 << 20
# For the daemon alone: the key, and what it needs to notify the service manager.
_WITHHELD = frozenset(
    {KEY_VARIABLE, "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM"}
)


class ToldRecord(Versioned, frozen=True, kw_only=True):
    """The sandbox that a run which succeeded was told of."""

    told: str = ""


def told_state(state_folder: str, name: str = MAIN) -> StateFile[ToldRecord]:
    """Return the file of the record of the sandbox that has this name in the configuration."""
    cost = "the agent is told of its sandbox once more"
    return StateFile(state_folder, "agent" if name == MAIN else f"agent-{name}", ToldRecord, cost)


class SyncedHooks:
    """The hooks of a workspace's sandboxes, by name; one object a process."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = environ
        self._clock = clock
        self._hooks: dict[str, SyncedHook] = {}
        self._queue: list[SyncedHook] = []  # the first one runs

    def of(self, name: str) -> SyncedHook:
        if name not in self._hooks:
            self._hooks[name] = SyncedHook(self._environ, self._clock, self._queue)
        return self._hooks[name]

    def keep_only(self, names: Collection[str]) -> None:
        """End those of other sandboxes."""
        for name in self._hooks.keys() - set(names):
            self._hooks.pop(name).close()
        _run_first(self._queue)

    @property
    def is_running(self) -> bool:
        return bool(self._queue)

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when a hook has something to do."""
        return [fileno for hook in self._hooks.values() for fileno in hook.filenos()]

    @property
    def due_s(self) -> float | None:
        """The monotonic second at which the time of a program is over; None if none runs."""
        return min((hook.due_s for hook in self._hooks.values() if hook.due_s is not None), default=None)

    def close(self) -> None:
        self.keep_only(())


class SyncedHook:
    """Runs the hook of the syncs to one sandbox, once it is the first of the `queue`."""

    def __init__(self, environ: Mapping[str, str], clock: Clock, queue: list[SyncedHook]) -> None:
        self._environ = {name: value for name, value in environ.items() if name not in _WITHHELD}
        self._clock = clock
        self._queue = queue
        self._command: tuple[str, ...] = ()  # of the next run
        self._config_file = self._changes_file = ""
        self._name = MAIN
        self._state = told_state("")
        self._target: Target | None = None
        self._servers: Mapping[str, str] = {}
        self._pending: CombinedChanges | None = None  # of syncs that no run was told of
        self._run: _Run | None = None
        self._running_for = ""
        self._failure = ""

    def configure(self, config: Config, state_folder: str) -> None:
        """Let the next run be that of this configuration; one under way goes on, unless its workspace is another.

        To be called with the workspace's lock held.
        """
        self._name = config.sandbox_name
        changes_file = os.path.join(state_folder, _NAME if self._name == MAIN else f"synced-changes-{self._name}.json")
        if changes_file != self._changes_file:
            self.close()
        if config.sync.on_synced != self._command:
            self._command, self._failure = config.sync.on_synced, ""
        self._config_file, self._changes_file = os.path.abspath(config.file), changes_file
        self._state = told_state(state_folder, self._name)
        if self._run is None:
            self._remove_changes()  # of a process that was killed

    def arrived(self, target: Target | None, changes: Difference | None, servers: Mapping[str, str]) -> None:
        """Run the program, now or once it has ended, if the sync brought changes to this sandbox; None: it did not."""
        if not self._command or target is None or changes is None:
            return
        if self._target is None or not self._target.same_sandbox(target):
            self._pending = None  # the other sandbox is left
        self._target, self._servers = target, callable_servers(servers)
        self._pending = self._pending or CombinedChanges()
        self._pending.add(changes)
        if self not in self._queue:
            self._queue.append(self)
        _run_first(self._queue)

    @property
    def is_running(self) -> bool:
        """True if it runs, or waits for its turn."""
        return self in self._queue

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to do."""
        return [] if self._run is None else self._run.filenos()

    @property
    def due_s(self) -> float | None:
        """The monotonic second at which the program's time is over; None if it does not run."""
        return None if self._run is None else self._run.due_s

    def poll(self) -> bool:
        """Handle the program's output and end; return True if `warnings` may have changed."""
        ended = None if self._run is None else self._run.poll(self._clock.monotonic_s())
        if ended is None:
            return False
        self._record_end(ended)
        self._queue.remove(self)
        if self._pending is not None:
            self._queue.append(self)
        _run_first(self._queue)
        return True

    def close(self) -> None:
        """End a running program, and forget what waits for the next one."""
        if self._run is not None:
            self._run.end()
            self._run = None
            self._remove_changes()
        if self in self._queue:
            self._queue.remove(self)
        self._target, self._pending = None, None

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning about the last run that has ended, if it failed."""
        if not self._failure:
            return []
        what = f"sync.on_synced {self._failure}; it is run again after the next sync"
        return [SyncWarning("synced:hook", what, "see its output in the log, then change the command")]

    def start(self) -> bool:
        """Start the program, if there is something to tell; return True if it runs."""
        if self._run is not None:
            return True
        if not self._command or self._target is None or self._pending is None:
            return False
        self._running_for = f"{self._target.base_url} {self._target.sandbox_id}"
        sandbox = {
            "sandbox": self._name,
            "sandbox_id": self._target.sandbox_id,
            "sandbox_changed": (self._state.load() or ToldRecord()).told != self._running_for,
            "mcp_servers": self._servers,
        }
        self._remove_changes()
        try:
            _write_changes(self._changes_file, sandbox, self._pending)
        except OSError as failure:
            # The next run tells of these changes too.
            self._record_end(f"is not run, as its file cannot be written ({failure.strerror})")
            return False
        self._pending = None
        _log.info("running sync.on_synced")
        variables = {"SYNCD_CONFIG": self._config_file, "SYNCD_CHANGES": self._changes_file}
        hidden = {url: f"[URL of {name}]" for name, url in self._servers.items()}
        try:
            self._run = _Run(self._command, {**self._environ, **variables}, hidden, self._clock.monotonic_s())
        except (OSError, ValueError) as failure:
            self._record_end(f"cannot be started ({getattr(failure, 'strerror', None) or failure})")
        return self._run is not None

    def _record_end(self, failure: str) -> None:
        self._run, self._failure = None, failure
        self._remove_changes()
        told = ToldRecord(told=self._running_for)
        if not failure and self._state.load() != told:
            with contextlib.suppress(OSError):  # then the next run is told of its sandbox once more
                self._state.save(told)

    def _remove_changes(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._changes_file)


def _run_first(queue: list[SyncedHook]) -> None:
    """Have the first of the queue that can be started run."""
    while queue and not queue[0].start():
        del queue[0]


def _write_changes(path: str, sandbox: Mapping[str, object], changes: CombinedChanges) -> None:
    """Write an object with these members and the lists of paths, which are the workspace's, so the file is private."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
        file.write(json.dumps(sandbox)[:-1])
        for change in Change:
            file.write(f', "{change}": [')
            separator, paths = "", changes.paths(change)
            while batch := list(islice(paths, _BATCH)):
                file.write(separator + json.dumps(batch)[1:-1])
                separator = ", "
            file.write("]")
        file.write("}\n")


class _Run:
    """A run of a person's own program: without a shell, its output in the log.

    Nobody waits for it: one descriptor becomes readable at its end (pidfd_open(2)), another with its output. `hidden`
    maps texts that no log may show, such as a server's URL, to their replacements.
    """

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], hidden: Mapping[str, str], now_s: float
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
        self._hidden = hidden
        self._rest, self._lines = b"", 0
        self.due_s, self._is_late = now_s + TIMEOUT_S, False
        os.set_blocking(self._output.fileno(), False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._output.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._output.close()
            raise

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to do."""
        return [self._pidfd] if self._output.closed else [self._pidfd, self._output.fileno()]

    def poll(self, now_s: float) -> str | None:
        """Log its output, and signal it when its time is over; once it has ended, return what failed, or an empty text.

        Nothing may be called after its end.
        """
        self._log(_BLOCK)
        if not self._has_ended(0):
            if now_s >= self.due_s:
                self._signal(signal.SIGKILL if self._is_late else signal.SIGTERM)
                self._is_late, self.due_s = True, now_s + GRACE_S
            return None
        if self._is_late:
            self._signal(signal.SIGKILL)  # for the rest of its group, whose id is still its own, as it is not reaped
        self._log(_PIPE_BYTES)
        self._log_line(self._rest)  # a process that it left running may hold the pipe open
        code = self._process.wait()
        self._close()
        if self._is_late:
            return f"took longer than {TIMEOUT_S:.0f} s and was ended"
        return f"was ended by signal {-code}" if code < 0 else f"ended with {code}" if code else ""

    def end(self) -> None:
        """End it now, with all processes of its group."""
        self._signal(signal.SIGTERM)
        self._has_ended(_END_S)
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._close()

    def _has_ended(self, wait_s: float) -> bool:
        return bool(select.select([self._pidfd], [], [], wait_s)[0])

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, number)

    def _close(self) -> None:
        self._output.close()
        os.close(self._pidfd)

    def _log(self, most_bytes: int) -> None:
        """Log the lines that were printed, and at the end of the output one without a newline."""
        if self._output.closed:
            return
        try:
            block = os.read(self._output.fileno(), most_bytes)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + block).split(b"\n")
        if not block or len(self._rest) > _BLOCK:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._log_line(line)
        if not block:
            self._output.close()  # at its end it would stay readable

    def _log_line(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        if not text.strip():
            return
        self._lines += 1
        if self._lines > _MOST_LINES:
            if self._lines == _MOST_LINES + 1:
                _hook_log.info("on_synced prints more, which is not logged")
            return
        for secret, shown in self._hidden.items():
            text = text.replace(secret, shown)
        _hook_log.info("on_synced: %s", one_line(text, _LONGEST_LINE))
