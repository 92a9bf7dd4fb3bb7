"""The last notifications, kept over restarts: a service that starts again and again must not repeat them.

Only how often a person is notified depends on the file: it is not flushed to the disk, and a damaged one counts as
none.
"""

from __future__ import annotations

import contextlib

from syncd.core.durable_file import CacheFile, Versioned
from syncd.report.desktop import Shown
from syncd.report.notification_rules import NoticeState

_LARGEST = 1 << 16


class _NoticeRecord(Versioned, frozen=True, kw_only=True):
    state: NoticeState
    shown: Shown | None


class NotificationStore:
    """The record in the state folder."""

    def __init__(self, folder: str) -> None:
        self._file = CacheFile(folder, "notices", _NoticeRecord, _LARGEST)

    def load(self) -> tuple[NoticeState, Shown | None]:
        """The state, and the notification that may still be on the desktop."""
        record = self._file.load()
        return (NoticeState(), None) if record is None else (record.state, record.shown)

    def save(self, state: NoticeState, shown: Shown | None) -> None:
        """Keep it. If that fails, a notification may be repeated after a restart."""
        with contextlib.suppress(OSError):
            self._file.save(_NoticeRecord(state=state, shown=shown))
