"""Keeps the signed URL across restarts: a fresh one is asked for only when the previous one has expired.

The file is the one place where a signed URL is written. It is 0600 in a 0700 folder, and useless once the URL expires.
"""

from __future__ import annotations

import contextlib

from msgspec import Struct

from syncd.core.clock import Clock
from syncd.core.durable_file import StateFile
from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrl


class _UploadUrlRecord(Struct):
    target: Target
    url: str
    ends_wall_s: float
    life_s: float


class UploadUrlStore:
    """Keeps one upload URL, with its expiry by the wall clock, which alone goes on between processes."""

    def __init__(self, folder: str, clock: Clock) -> None:
        self._file = StateFile(folder, "lease", _UploadUrlRecord, "a new upload URL is asked for")
        self._clock = clock

    def load(self, target: Target) -> UploadUrl | None:
        """Return the URL for this target, if a valid one is kept."""
        record = self._file.load()
        if record is None:
            return None
        left_s = record.ends_wall_s - self._clock.wall_s()
        if record.target != target or not 0 < left_s <= record.life_s:
            return None
        return UploadUrl(record.url, self._clock.boottime_s() + left_s, record.life_s)

    def save(self, target: Target, upload_url: UploadUrl) -> None:
        """Keep the URL. Raises `OSError`."""
        ends_wall_s = self._clock.wall_s() + upload_url.ends_s - self._clock.boottime_s()
        self._file.save(_UploadUrlRecord(target, upload_url.url, ends_wall_s, upload_url.life_s))

    def forget(self) -> None:
        """Remove a refused URL. If the file stays, the next process finds that out with one request."""
        with contextlib.suppress(OSError):
            self._file.remove()
