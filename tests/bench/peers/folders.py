"""Tools whose target is a folder: an edit has arrived once the file there has the source's bytes."""

from __future__ import annotations

from contextlib import suppress

from tests.bench.peers.peer import Ground, PeerFailed, true_within
from tests.bench.peers.processes import Processes
from tests.bench.peers.wire import Meter
from tests.bench.stopwatch import CLOCK


def is_there(ground: Ground, victim: str) -> bool:
    """Return if a file is in the target as it is in the source."""
    with suppress(OSError):  # it is not there yet, or is being replaced
        return (ground.target / victim).read_bytes() == (ground.source / victim).read_bytes()
    return False


class Mirror:
    """A daemon that keeps the target equal to the source by itself."""

    def __init__(self, ground: Ground, processes: Processes, meter: Meter) -> None:
        self._ground = ground
        self._processes = processes
        self._meter = meter

    def arrival(self, victim: str, within_s: float) -> float | None:
        def arrived() -> bool:
            self._processes.check()
            return is_there(self._ground, victim)

        return CLOCK.monotonic_s() if true_within(within_s, arrived) else None

    def cpu_s(self) -> float:
        return self._processes.cpu_s()

    def wire_bytes(self) -> int:
        return self._meter.count


class MirrorRun:
    """A command that makes the target equal to the source, run after each edit."""

    def __init__(self, ground: Ground, processes: Processes, meter: Meter, argv: tuple[str, ...]) -> None:
        self._ground = ground
        self._processes = processes
        self._meter = meter
        self._argv = argv

    def arrival(self, victim: str, within_s: float) -> float:
        ended_s = self._processes.run(*self._argv)
        if not is_there(self._ground, victim):
            raise PeerFailed(f"{self._argv[0]} ended well, but {victim} is not in the target as it is in the source")
        return ended_s

    def cpu_s(self) -> float:
        return self._processes.cpu_s()

    def wire_bytes(self) -> int:
        return self._meter.count
