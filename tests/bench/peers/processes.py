"""A tool's processes: started in sessions of their own, so that all can be counted and ended."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.peers.peer import Deadline, PeerFailed
from tests.bench.peers.rules import ProcessUsage, process_usage, session_ticks
from tests.bench.stopwatch import CLOCK

_END_S = 5.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Processes:
    """The processes that were started here, with their descendants. `log` gets all that they say."""

    def __init__(self, log: Path, environment: Mapping[str, str], deadline: Deadline) -> None:
        self._log = log
        self._environment = dict(environment)
        self._deadline = deadline
        self._started: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._runs_cpu_s = 0.0

    def start(self, *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        """Start one that stays."""
        self._started_in_a_session(argv, cwd, env)

    def run(self, *argv: str, cwd: Path | None = None) -> float:
        """Run one to its end, and return the monotonic time of that; its CPU time counts.

        Raises PeerFailed with its last words.
        """
        before_s = _children_cpu_s()
        process = self._started_in_a_session(argv, cwd, None)
        try:
            ended = _ends_within(process.pid, self._deadline.left_s())
            ended_s = CLOCK.monotonic_s()
        finally:
            self._end(process)
        self._runs_cpu_s += _children_cpu_s() - before_s
        if not ended:
            raise self._deadline.missed(f"{argv[0]} ends")
        if process.returncode:
            raise PeerFailed(f"{argv[0]} ended with {process.returncode}: {self._last_words()}")
        return ended_s

    def output(self, *argv: str, cwd: Path | None = None, given: bytes = b"") -> bytes:
        """Return what a command prints; its CPU time does not count. Raises PeerFailed."""
        try:
            return subprocess.run(
                argv,
                cwd=cwd,
                env=self._environment,
                input=given,
                capture_output=True,
                check=True,
                timeout=max(1.0, self._deadline.left_s()),
            ).stdout
        except subprocess.CalledProcessError as error:
            raise PeerFailed(f"{argv[0]} ended with {error.returncode}: {_last_line(error.stderr)}") from error
        except subprocess.TimeoutExpired as error:
            raise self._deadline.missed(f"{argv[0]} ends") from error

    def check(self) -> None:
        """Raise PeerFailed if one that should stay has ended."""
        for name, process in self._started.values():
            if process.poll() is not None:
                raise PeerFailed(f"{name} ended with {process.returncode}: {self._last_words()}")

    def cpu_s(self) -> float:
        """Return the CPU seconds so far."""
        return self._runs_cpu_s + session_ticks(_usages().values(), frozenset(self._started)) / _TICKS_A_SECOND

    def await_port(self, port: int) -> None:
        """Wait until something listens on this port of loopback. Raises PeerFailed."""

        def listening() -> bool:
            self.check()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        self._deadline.wait_until(listening, f"port {port} is open")

    def end(self) -> None:
        """End every process, those that have left their parent too."""
        for _, process in list(self._started.values()):
            self._end(process)

    def _started_in_a_session(
        self, argv: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**self._environment, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started[process.pid] = (argv[0], process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        _signal_session(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        _signal_session(process.pid, signal.SIGKILL)
        process.wait()
        del self._started[process.pid]

    def _last_words(self) -> str:
        return _last_line(self._log.read_bytes())


@contextmanager
def started(home: Path, environment: Mapping[str, str], deadline: Deadline) -> Iterator[Processes]:
    """Give room for processes; all are ended after it."""
    processes = Processes(home / "log", environment, deadline)
    try:
        yield processes
    finally:
        processes.end()


def _ends_within(pid: int, limit_s: float) -> bool:
    """Wait for the end of a child without reaping it. `Popen.wait` with a limit looks only every 50 ms."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(CLOCK.poll(poll, limit_s))
    finally:
        os.close(descriptor)


def free_port() -> int:
    """Return a port of loopback that was free a moment ago, for a tool that cannot choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _signal_session(session: int, number: signal.Signals) -> None:
    for pid, usage in _usages().items():
        if usage.session == session:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _usages() -> dict[int, ProcessUsage]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):  # it has just ended
                found[int(name)] = process_usage(Path("/proc", name, "stat").read_text(errors="replace"))
    return found


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_line(said: bytes) -> str:
    lines = os.fsdecode(said).strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
