"""What the daemon's loop works with, all of it open and handed over."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass

from syncd.core.clock import Clock
from syncd.core.waiter import Waiter
from syncd.daemon.control import ControlServer
from syncd.daemon.live_reload import LiveReload
from syncd.daemon.pause_file import PauseFile
from syncd.daemon.signals import Signals
from syncd.daemon.wakeup import Wakeup
from syncd.remote.http_client import HttpClient
from syncd.remote.retry import RetrySettings
from syncd.report.status_publisher import StatusPublisher
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sandbox.agent_notifier import AgentNotifier
from syncd.sync.sync_cycle import SyncCycle
from syncd.watch.interface import Watcher
from syncd.watch.mounts import MountMonitor
from syncd.watch.suspend_detector import SuspendDetector


@dataclass(frozen=True)
class Timing:
    """`[sync]`, in seconds."""

    quiet_s: float
    max_wait_s: float
    rescan_s: float


@dataclass
class Components:
    """What the loop works with; `process.wiring` makes them."""

    cycle: SyncCycle
    watch: Watcher
    control: ControlServer
    publisher: StatusPublisher
    agent_notifier: AgentNotifier
    manager: SystemdNotifier
    signals: Signals
    revision: LiveReload
    wakeup: Wakeup
    waiter: Waiter
    monitor: SuspendDetector
    mounts: MountMonitor
    client: HttpClient
    pause_file: PauseFile
    clock: Clock
    timing: Timing
    retry_settings: RetrySettings
    key_file: str

    def key_stamp(self) -> tuple[int, ...] | None:
        """What changes when the key's file is written or replaced; None: it is not there."""
        try:
            status = os.stat(self.key_file)
        except OSError:
            return None
        # The time of change besides: the next file may have the number, and `cp -p` gives it any time of writing.
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def wake_fds(self) -> list[tuple[int, int]]:
        """What tells that something has come that the loop should hear of at once, and by which event of poll(2)."""
        readers = (self.monitor, self.control, self.agent_notifier)
        filenos = [self.wakeup.fileno(), *(fileno for reader in readers for fileno in reader.filenos())]
        mounts = [(fileno, select.POLLPRI) for fileno in self.mounts.filenos()]
        return [*((fileno, select.POLLIN) for fileno in filenos), *mounts]

    def deadlines(self) -> list[float]:
        """The monotonic seconds at which something is due, whatever comes."""
        times = (
            self.manager.next_ping_s(),
            self.client.idle_at_s,
            self.publisher.notification_due_s,
            self.agent_notifier.due_s,
        )
        return [time_s for time_s in times if time_s is not None]
