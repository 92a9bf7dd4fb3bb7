"""The last notifications, kept over restarts: a service that starts again and again must not repeat them.

Only how often a person is notified depends on the file: it is not flushed to the disk, and a damaged one counts as
none.
"""

from __future__ import annotations

import contextlib
import os

import msgspec
from msgspec import Struct

from syncd.core.durable_file import read_file, write_whole
from syncd.report.desktop import Shown
from syncd.report.notification_rules import NoticeState

_NAME = "notices"
_LARGEST = 1 << 16


class _NoticeRecord(Struct, frozen=True):
    state: NoticeState
    shown: Shown | None


class NotificationStore:
    """The record in the state folder."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, _NAME)

    def load(self) -> tuple[NoticeState, Shown | None]:
        """The state, and the notification that may still be on the desktop."""
        try:
            record = msgspec.json.decode(read_file(self._path, _LARGEST), type=_NoticeRecord)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return NoticeState(), None
        return record.state, record.shown

    def save(self, state: NoticeState, shown: Shown | None) -> None:
        """Keep it. Where that fails, a notification may be repeated after a restart."""
        with contextlib.suppress(OSError):
            write_whole(self._path, msgspec.json.encode(_NoticeRecord(state, shown)))
