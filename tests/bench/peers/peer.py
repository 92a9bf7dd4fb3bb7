"""What a tool has to offer to be measured, and what it is given."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.bench.stopwatch import CLOCK

POLL_S = 0.002  # so finely are arrivals timed


class PeerFailed(Exception):
    """A tool cannot be measured; the message says why."""


class Deadline:
    """The end of all waiting for one tool."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._ends_s = CLOCK.monotonic_s() + limit_s

    def left_s(self) -> float:
        """Return the seconds that are left, 0 once none are."""
        return max(0.0, self._ends_s - CLOCK.monotonic_s())

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Ask until it happened. Raises PeerFailed at the deadline."""
        if not true_within(self.left_s(), happened):
            raise self.missed(what)

    def missed(self, what: str) -> PeerFailed:
        """Return the failure of what did not happen in time."""
        return PeerFailed(f"{what}: not within {self.limit_s:g} s")


def true_within(limit_s: float, happened: Callable[[], bool]) -> bool:
    """Ask until it happened, for so many seconds, at least once; return the last answer."""
    ends_s = CLOCK.monotonic_s() + limit_s
    while not (found := happened()) and CLOCK.monotonic_s() < ends_s:
        CLOCK.sleep(POLL_S)
    return found


@dataclass(frozen=True)
class Ground:
    """A tool's own folders, and the quiet time it is asked to keep, in seconds."""

    source: Path
    target: Path
    home: Path
    quiet_s: float
    deadline: Deadline

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


class Running(Protocol):
    """A tool that is ready to carry edits from the source to the target."""

    def arrival(self, victim: str, within_s: float) -> float | None:
        """Return the monotonic time at which the source's version of a file was there, None if it was not in time.

        Raises PeerFailed if the tool ended, or said that it failed.
        """
        ...

    def cpu_s(self) -> float:
        """Return the CPU seconds of all its processes so far."""
        ...

    def wire_bytes(self) -> int | None:
        """Return the bytes that went over the wire so far, None if nothing counts them."""
        ...


@dataclass(frozen=True)
class Peer:
    """A tool: the commands it needs, how long it waits on purpose if that cannot be set, and how it is started.

    A `waits_s` of None is the quiet time that is asked for.
    """

    name: str
    needs: tuple[str, ...]
    note: str
    running: Callable[[Ground], AbstractContextManager[Running]]
    waits_s: float | None = None

    def missing(self) -> list[str]:
        """Return which of its commands are not installed."""
        return [command for command in self.needs if shutil.which(command) is None]
