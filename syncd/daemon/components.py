"""What the daemon's loop works with, all of it open and handed over."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass

from syncd.core.clock import Clock
from syncd.core.waiter import Waiter
from syncd.daemon.control import ControlServer
from syncd.daemon.live_reload import Revision
from syncd.daemon.pause_file import PauseFile
from syncd.daemon.signals import Signals
from syncd.daemon.wakeup import Wakeup
from syncd.remote.http_client import Exchanger
from syncd.remote.retry import Patience
from syncd.report.status_publisher import Board
from syncd.report.systemd_notify import ServiceManager
from syncd.sandbox.agent_notifier import Liaison
from syncd.sync.sync_cycle import Cycle
from syncd.watch.interface import Watcher
from syncd.watch.mounts import MountSensor
from syncd.watch.suspend_detector import SleepSensor


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
