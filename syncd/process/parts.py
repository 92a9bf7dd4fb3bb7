"""What the daemon's loop works with, all of it open and handed over."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass

from syncd.base.clock import Clock
from syncd.effects.control import ControlServer
from syncd.effects.cycle import Cycle
from syncd.effects.delivery import Patience
from syncd.effects.http import Exchanger
from syncd.effects.mounts import MountSensor
from syncd.effects.pause_file import PauseFile
from syncd.effects.waiter import Waiter
from syncd.effects.watcher import Watcher
from syncd.process.board import Board
from syncd.process.liaison import Liaison
from syncd.process.resume import SleepSensor
from syncd.process.revision import Revision
from syncd.process.service_manager import ServiceManager
from syncd.process.signals import Signals
from syncd.process.wakeup import Wakeup


@dataclass(frozen=True)
class Timing:
    """`[sync]`, in seconds."""

    quiet_s: float
    max_wait_s: float
    rescan_s: float


@dataclass
class Parts:
    """What the loop works with; `process.wiring` makes them."""

    cycle: Cycle
    watch: Watcher
    control: ControlServer
    board: Board
    liaison: Liaison
    manager: ServiceManager
    signals: Signals
    revision: Revision
    wakeup: Wakeup
    waiter: Waiter
    sensor: SleepSensor
    mounts: MountSensor
    exchanger: Exchanger
    pause_file: PauseFile
    clock: Clock
    timing: Timing
    patience: Patience
    key_file: str

    def key_stamp(self) -> tuple[int, ...] | None:
        """What changes when the key's file is written or replaced; None: it is not there."""
        try:
            status = os.stat(self.key_file)
        except OSError:
            return None
        # The time of change besides: the next file may have the number, and `cp -p` gives it any time of writing.
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def alarms(self) -> list[tuple[int, int]]:
        """What tells that something has come that the loop should hear of at once, and by which event of poll(2)."""
        readers = (self.sensor, self.control, self.liaison)
        filenos = [self.wakeup.fileno(), *(fileno for reader in readers for fileno in reader.filenos())]
        mounts = [(fileno, select.POLLPRI) for fileno in self.mounts.filenos()]
        return [*((fileno, select.POLLIN) for fileno in filenos), *mounts]

    def appointments(self) -> list[float]:
        """The monotonic seconds at which something is due, whatever comes."""
        times = (
            self.manager.next_ping_s(),
            self.exchanger.cold_at_s,
            self.board.news_due_s,
            self.liaison.due_s,
        )
        return [time_s for time_s in times if time_s is not None]
