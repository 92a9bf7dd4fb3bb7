"""A tool beside syncd: what it is given, how it is asked if an edit has arrived, and its processes."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench.measure import CLOCK

_POLL_S = 0.002  # so finely are arrivals timed
_END_S = 5.0


class PeerFailed(Exception):
    """A tool cannot be measured; the message says why."""


def true_within(limit_s: float, happened: Callable[[], bool]) -> bool:
    """Ask until it happened, for so many seconds, at least once; return the last answer."""
    ends_s = CLOCK.monotonic_s() + limit_s
    while not (found := happened()) and CLOCK.monotonic_s() < ends_s:
        CLOCK.sleep(_POLL_S)
    return found


@dataclass(frozen=True)
class Ground:
    """A tool's own folders, and the quiet time it is asked to keep, in seconds."""

    source: Path
    target: Path
    home: Path
    quiet_s: float

    def environment(self) -> dict[str, str]:
        """Return the whole environment of its processes: nothing of the user's but where commands are."""
        folders = {"CONFIG": ".config", "STATE": ".local/state", "CACHE": ".cache", "DATA": ".local/share"}
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            **{f"XDG_{name}_HOME": str(self.home / folder) for name, folder in folders.items()},
            "XDG_RUNTIME_DIR": str(self.home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "LANG": "C.UTF-8",
        }

    def is_there(self, victim: str) -> bool:
        """Return if a file is in the target as it is in the source."""
        with suppress(OSError):  # it is not there yet, or is being replaced
            return (self.target / victim).read_bytes() == (self.source / victim).read_bytes()
        return False


class Processes:
    """Processes in sessions of their own, so that all can be counted and ended. `log` gets all that they say."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self._log = log
        self._environment = dict(environment)
        self._started: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._runs_cpu_s = 0.0

    def start(self, *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        """Start one that stays."""
        environment = {**self._environment, **(env or {})}
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._started[process.pid] = (argv[0], process)

    def run(self, *argv: str, cwd: Path | None = None) -> None:
        """Run one to its end; its CPU time counts. Raises PeerFailed with its last words."""
        before_s = _children_cpu_s()
        self.output(*argv, cwd=cwd)
        self._runs_cpu_s += _children_cpu_s() - before_s

    def output(self, *argv: str, cwd: Path | None = None) -> bytes:
        """Return what a command prints; its CPU time does not count. Raises PeerFailed."""
        try:
            return subprocess.run(argv, cwd=cwd, env=self._environment, capture_output=True, check=True).stdout
        except subprocess.CalledProcessError as error:
            raise PeerFailed(f"{argv[0]} ended with {error.returncode}: {_last_line(error.stderr)}") from error

    def check(self) -> None:
        """Raise PeerFailed if one that should stay has ended."""
        for name, process in self._started.values():
            if process.poll() is not None:
                raise PeerFailed(f"{name} ended with {process.returncode}: {_last_line(self._log.read_bytes())}")

    def cpu_s(self) -> float:
        """Return the CPU seconds so far: of a child with itself while it lives, with its parent once that waited."""
        live = sum(ticks for session, ticks in _sessions().values() if session in self._started)
        return self._runs_cpu_s + live / os.sysconf("SC_CLK_TCK")

    def await_port(self, port: int) -> None:
        """Wait until something listens on this port of loopback. Raises PeerFailed."""

        def listening() -> bool:
            self.check()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        if not true_within(60, listening):
            raise PeerFailed(f"port {port} is not open")

    def end(self) -> None:
        """End every process, those that have left their parent too."""
        for session, (_, process) in self._started.items():
            _signal_session(session, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            _signal_session(session, signal.SIGKILL)
            process.wait()


@contextmanager
def started(ground: Ground, environment: Mapping[str, str] | None = None) -> Iterator[Processes]:
    """Give room for processes; all are ended after it."""
    processes = Processes(ground.home / "log", {**ground.environment(), **(environment or {})})
    try:
        yield processes
    finally:
        processes.end()


@dataclass(frozen=True)
class Running:
    """A tool that is ready: if an edit is there, the bytes that were moved so far, and what is run after each edit."""

    processes: Processes
    is_there: Callable[[str], bool]
    moved_bytes: Callable[[], int]
    command: tuple[str, ...] = ()
    cwd: Path | None = field(default=None)

    def has_arrived(self, victim: str) -> bool:
        """Run what is to be run, and return if the edit is there. Raises PeerFailed if the tool ended."""
        if self.command:
            self.processes.run(*self.command, cwd=self.cwd)
        self.processes.check()
        return self.is_there(victim)

    def arrival(self, victim: str, within_s: float) -> float:
        """Return the monotonic time at which the source's version of a file was there. Raises PeerFailed."""
        if not self.command:
            if not true_within(within_s, lambda: self.has_arrived(victim)):
                raise PeerFailed(f"an edit has not arrived within {within_s:g} s")
            return CLOCK.monotonic_s()
        self.processes.run(*self.command, cwd=self.cwd)
        ended_s = CLOCK.monotonic_s()
        if not self.is_there(victim):
            raise PeerFailed(f"{self.command[0]} ended well, but {victim} is not there as it is in the source")
        return ended_s


@dataclass(frozen=True)
class Peer:
    """A tool: the commands it needs, how it is started, and how long it waits on purpose if that cannot be set."""

    name: str
    needs: tuple[str, ...]
    running: Callable[[Ground], AbstractContextManager[Running]]
    waits_s: float | None = None


def free_port() -> int:
    """Return a port of loopback that was free a moment ago, for a tool that cannot choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _signal_session(session: int, number: signal.Signals) -> None:
    for pid, (found, _) in _sessions().items():
        if found == session:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _sessions() -> dict[int, tuple[int, int]]:
    """Return of each process its session, and its CPU ticks with those of the children that it waited for."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):  # it has just ended
                # The command's name may hold spaces and brackets (proc_pid_stat(5)).
                fields = Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()
                found[int(name)] = int(fields[3]), sum(int(each) for each in fields[11:15])
    return found


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_line(said: bytes) -> str:
    lines = os.fsdecode(said).strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
