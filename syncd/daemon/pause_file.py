"""Whether syncing is paused: a mark that is there or not, so that a pause outlives restarts and needs no daemon.

It outlives a power cut too: who paused may have meant to keep something at home.
"""

from __future__ import annotations

from syncd.core.durable_file import MarkerFile


class PauseFile:
    """The mark in the state folder."""

    def __init__(self, folder: str) -> None:
        self._mark = MarkerFile(folder, "paused")

    @property
    def paused(self) -> bool:
        """Whether the mark is there."""
        return self._mark.exists

    def set(self, *, paused: bool) -> None:
        """Make the mark or take it away. Raises `OSError`."""
        if paused:
            self._mark.create()
        else:
            self._mark.remove()
