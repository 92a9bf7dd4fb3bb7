"""What the daemon's loop works with, all of it open and handed over."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.base.clock import Clock
from syncd.base.interrupt import Interrupt
from syncd.effects.control import ControlServer
from syncd.effects.cycle import Cycle
from syncd.effects.delivery import Patience
from syncd.effects.http import Exchanger
from syncd.effects.mounts import MountSensor
from syncd.effects.pause_file import PauseFile
from syncd.effects.watcher import Watcher
from syncd.process.board import Board
from syncd.process.resume import SleepSensor
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
    manager: ServiceManager
    signals: Signals
    wakeup: Wakeup
    interrupt: Interrupt
    sensor: SleepSensor
    mounts: MountSensor
    exchanger: Exchanger
    pause_file: PauseFile
    clock: Clock
    timing: Timing
    patience: Patience
    key_file: str
