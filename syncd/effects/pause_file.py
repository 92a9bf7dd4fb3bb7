"""Whether syncing is paused: a file that is there or not, so that a pause outlives restarts and needs no daemon."""

from __future__ import annotations

import contextlib
import os


class PauseFile:
    """The mark in the state folder."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "paused")

    @property
    def paused(self) -> bool:
        """Whether the mark is there."""
        return os.path.exists(self._path)

    def set(self, *, paused: bool) -> None:
        """Make the mark or take it away. Raises `OSError`."""
        if paused:
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
