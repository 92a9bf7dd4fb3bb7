"""What the desktop was told, over restarts: a service that starts again and again must not say the same each time.

Kept with the wall clock's time, since no other goes on over a boot. Nothing depends on it but how often a person is
told something: it is not flushed to the disk, and one that makes no sense is as good as none.
"""

from __future__ import annotations

import contextlib
import os

import msgspec
from msgspec import Struct

from syncd.core.clock import Clock
from syncd.core.durable_file import read_file, write_whole
from syncd.report.desktop import Shown
from syncd.report.notification_rules import DAY_S, NoticeState, shifted

_NAME = "notices"
_LARGEST = 1 << 16


class _NoticeRecord(Struct, frozen=True):
    told: NoticeState
    shown: Shown | None
    boot_s: float
    wall_s: float


class NotificationStore:
    """The record in the state folder."""

    def __init__(self, folder: str, clock: Clock) -> None:
        self._path = os.path.join(folder, _NAME)
        self._clock = clock

    def load(self) -> tuple[NoticeState, Shown | None]:
        """What was told, in this boot's seconds, and the notification that stands on the desktop."""
        try:
            record = msgspec.json.decode(read_file(self._path, _LARGEST), type=_NoticeRecord)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return NoticeState(), None
        # Of a clock that was set back nothing is believed but that no time has passed.
        passed_s = max(0.0, self._clock.wall_s() - record.wall_s)
        now_s = self._clock.boottime_s()
        told = shifted(record.told, now_s - record.boot_s - passed_s)
        if not told.times or now_s - told.times[-1] >= DAY_S:
            return NoticeState(), None  # nobody has it in mind any more
        return told, record.shown

    def save(self, told: NoticeState, shown: Shown | None) -> None:
        """Keep it. Where that fails, a restart may say something once more."""
        record = _NoticeRecord(told, shown, self._clock.boottime_s(), self._clock.wall_s())
        with contextlib.suppress(OSError):
            write_whole(self._path, msgspec.json.encode(record))
