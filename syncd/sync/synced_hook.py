"""Runs the program of `sync.on_synced` after each sync that arrived, and tells it in a file what changed there.

It has no shell, 60 seconds at most, and its output is logged; the loop never waits for it. Syncs that arrive while it
runs become one more run, which gets all their changes. A reload ends no run, and forgets nothing that one is still to
be told.
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
from collections.abc import Iterator, Mapping
from itertools import islice

from msgspec import structs

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.clock import Clock
from syncd.core.hardening import original_umask
from syncd.core.settings import Config
from syncd.core.text import one_line
from syncd.core.warning import SyncWarning
from syncd.remote.target import Target
from syncd.sandbox.agent_info import callable_servers
from syncd.sandbox.mcp_servers import AgentRecord, agent_state
from syncd.sync.arrived_changes import ArrivedChanges, Change, CombinedChanges

_log = logging.getLogger("syncd")
_hook_log = logging.getLogger("syncd.hook")

TIMEOUT_S = 60.0
_NAME = "synced-changes.json"
# The name of the sandbox in the configuration; a workspace has one.
_SANDBOX = "main"
# So many paths are encoded at once: a first sync may have a million.
_BATCH = 10_000


# Between SIGTERM and SIGKILL.
GRACE_S = 2.0
# The daemon itself has to end within five seconds.
_END_MS = 1000
_MOST_LINES = 100
_LONGEST_LINE = 300
_BLOCK = 1 << 16
# A busy loop does not read, and the program should not wait for it (pipe(7): the maximum without privileges).
_PIPE_BYTES = 1 << 20
# For the daemon alone: the key, and what it needs to notify the service manager.
_WITHHELD = frozenset(
    {KEY_VARIABLE, "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM"}
)


class ChangesFile:
    """The file from which a run reads its changes, for that run alone: the paths of the workspace, so it is private."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, _NAME)

    def write(self, sandbox: Mapping[str, object], changes: CombinedChanges) -> None:
        """Write the file: an object with these members and the lists of paths. Raises `OSError`."""
        self.remove()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(self.path, flags, 0o600), "w", encoding="ascii") as file:
            file.write(json.dumps(sandbox)[:-1])
            for change in Change:
                file.write(f', "{change}": [')
                file.writelines(_listed(changes.paths(change)))
                file.write("]")
            file.write("}\n")

    def remove(self) -> None:
        """Remove the file, if there is one."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def _listed(paths: Iterator[str]) -> Iterator[str]:
    """Yield the items of a JSON array."""
    separator = ""
    while batch := list(islice(paths, _BATCH)):
        yield separator + json.dumps(batch)[1:-1]
        separator = ", "


class SyncedHook:
    """Runs the hook of one workspace's syncs; one object a process."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._hook = _Program(environ, clock)
        self._config_file = ""
        self._changes_file = ChangesFile("")
        self._state = agent_state("")
        self._target: Target | None = None
        self._servers: Mapping[str, str] = {}
        self._pending: CombinedChanges | None = None  # of syncs that no run was told of
        self._running_for = ""
        self._failure = ""

    def configure(self, config: Config, state_folder: str) -> None:
        """Let the next run be that of this configuration; one under way goes on, unless its workspace is another.

        To be called with the workspace's lock held.
        """
        changes_file = ChangesFile(state_folder)
        if changes_file.path != self._changes_file.path:
            self.close()
        if config.sync.on_synced != self._hook.command:
            self._hook.command, self._failure = config.sync.on_synced, ""
        self._config_file, self._changes_file = os.path.abspath(config.file), changes_file
        self._state = agent_state(state_folder)
        if not self._hook.running:
            changes_file.remove()  # of a process that was killed

    def arrived(self, target: Target | None, changes: ArrivedChanges | None, servers: Mapping[str, str]) -> None:
        """Run the program, now or once it has ended, if the sync brought changes to this sandbox; None: it did not."""
        if not self._hook.command or target is None or changes is None:
            return
        if self._target is None or not self._target.same_sandbox(target):
            self._pending = None  # the other sandbox is left
        self._target, self._servers = target, callable_servers(servers)
        self._pending = self._pending or CombinedChanges()
        self._pending.add(changes)
        self._run()

    @property
    def is_running(self) -> bool:
        """True while the program runs."""
        return self._hook.running

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to do."""
        return self._hook.filenos()

    @property
    def due_s(self) -> float | None:
        """The monotonic second at which the program's time is over; None if it does not run."""
        return self._hook.due_s

    def poll(self) -> bool:
        """Handle the program's output and end; return True if `warnings` may have changed."""
        ended = self._hook.poll()
        if ended is None:
            return False
        self._record_end(ended)
        self._run()
        return True

    def close(self) -> None:
        """End a running program, and forget what waits for the next one."""
        if self._hook.running:
            self._hook.terminate()
            self._changes_file.remove()
        self._target, self._pending = None, None

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning about the last run that has ended, if it failed."""
        if not self._failure:
            return []
        what = f"sync.on_synced {self._failure}; it is run again after the next sync"
        return [SyncWarning("synced:hook", what, "see its output in the log, then change the command")]

    def _run(self) -> None:
        if self._hook.running or not self._hook.command or self._target is None or self._pending is None:
            return
        self._running_for = f"{self._target.base_url} {self._target.sandbox_id}"
        sandbox = {
            "sandbox": _SANDBOX,
            "sandbox_id": self._target.sandbox_id,
            "sandbox_changed": self._told != self._running_for,
            "mcp_servers": self._servers,
        }
        try:
            self._changes_file.write(sandbox, self._pending)
        except OSError as failure:
            # The next run tells of these changes too.
            self._record_end(f"is not run, as its file cannot be written ({failure.strerror})")
            return
        self._pending = None
        _log.info("running sync.on_synced")
        variables = {"SYNCD_CONFIG": self._config_file, "SYNCD_CHANGES": self._changes_file.path}
        hidden = {url: f"[URL of {name}]" for name, url in self._servers.items()}
        failed = self._hook.start(variables, hidden)
        if failed is not None:
            self._record_end(failed)

    @property
    def _told(self) -> str:
        """The sandbox of the last run that succeeded."""
        record = self._state.load()
        return record.told if record is not None else ""

    def _record_end(self, failure: str) -> None:
        self._changes_file.remove()
        self._failure = failure
        if not failure and self._told != self._running_for:
            record = self._state.load() or AgentRecord()
            with contextlib.suppress(OSError):  # then the next run is told of its sandbox once more
                self._state.save(structs.replace(record, told=self._running_for))


class _Program:
    """A person's own program, of which at most one run is active: without a shell, its output in the log.

    Nobody waits for it: one descriptor becomes readable at its end (pidfd_open(2)), another with its output. A result
    is what failed, or empty. Without a command it is never started.
    """

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self.command: tuple[str, ...] = ()  # of the next run
        self._environ = environ
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._ends_s = 0.0
        self._terminating = False
        self._pending = b""
        self._lines = 0
        self._hidden: Mapping[str, str] = {}

    @property
    def running(self) -> bool:
        """True if it runs now."""
        return self._process is not None

    def start(self, variables: Mapping[str, str], hidden: Mapping[str, str]) -> str | None:
        """Run the command with these variables; return the failure if it cannot be started.

        `hidden` maps texts that no log may show, such as a server's URL, to their replacements.
        """
        home = os.path.expanduser("~")
        environ = {name: value for name, value in self._environ.items() if name not in _WITHHELD}
        try:
            process = subprocess.Popen(
                [os.path.expanduser(self.command[0]), *self.command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=home if os.path.isdir(home) else "/",
                env={**environ, **variables},
                start_new_session=True,
                umask=original_umask(),  # its files get the person's permissions, not the daemon's
            )
        except (OSError, ValueError) as failure:
            return f"cannot be started ({getattr(failure, 'strerror', None) or failure})"
        self._process, self._hidden = process, hidden
        self._ends_s, self._terminating = self._clock.monotonic_s() + TIMEOUT_S, False
        self._pending, self._lines = b"", 0
        assert process.stdout is not None  # noqa: S101 - a pipe, as requested above
        os.set_blocking(process.stdout.fileno(), False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except OSError as failure:
            self.terminate()
            return f"cannot be waited for ({failure.strerror})"
        return None

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to do."""
        return [] if self._process is None else [self._pidfd, *([self._output_fd] if self._output_fd >= 0 else [])]

    @property
    def due_s(self) -> float | None:
        """The monotonic second at which its time is over; None if it does not run."""
        return None if self._process is None else self._ends_s

    def poll(self) -> str | None:
        """Read its output, and signal it when its time is over; return its result if it has ended."""
        process = self._process
        if process is None:
            return None
        self._read(_BLOCK)
        if not select.select([self._pidfd], [], [], 0)[0]:
            now_s = self._clock.monotonic_s()
            if now_s >= self._ends_s:
                self._signal(signal.SIGKILL if self._terminating else signal.SIGTERM)
                self._terminating, self._ends_s = True, now_s + GRACE_S
            return None
        if self._terminating:
            self._signal(signal.SIGKILL)  # for the rest of its group, whose id is still its own, as it is not reaped
        self._read(_PIPE_BYTES)
        self._log_line(self._pending)  # a process that it left running may hold the pipe open
        code = process.wait()
        self._close()
        if self._terminating:
            return f"took longer than {TIMEOUT_S:.0f} s and was ended"
        if code < 0:
            return f"was ended by signal {-code}"
        return f"ended with {code}" if code else ""

    def terminate(self) -> None:
        """End it now, with all processes of its group."""
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        if self._pidfd >= 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(_END_MS)
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        self._close()

    @property
    def _output_fd(self) -> int:
        pipe = self._process.stdout if self._process else None
        return -1 if pipe is None or pipe.closed else pipe.fileno()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, number)

    def _close(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._process, self._pidfd = None, -1

    def _read(self, most_bytes: int) -> None:
        """Log its lines, at the end also one without a newline."""
        left = most_bytes
        while left > 0 and self._output_fd >= 0:
            try:
                block = os.read(self._output_fd, min(left, _BLOCK))
            except BlockingIOError:
                return
            if not block:
                self._log_line(self._pending)
                self._pending = b""
                if self._process is not None and self._process.stdout is not None:
                    self._process.stdout.close()  # at its end it would stay readable
                return
            left -= len(block)
            *lines, self._pending = (self._pending + block).split(b"\n")
            for line in lines:
                self._log_line(line)
            if len(self._pending) > _BLOCK:
                self._log_line(self._pending)
                self._pending = b""

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
