"""The file that marks syncing as paused, so that a pause outlives restarts and needs no daemon.

It outlives a power cut too: the pause may be there to keep something from being sent.
"""

from __future__ import annotations

from syncd.core.durable_file import MarkerFile


class PauseFile:
    """The marker file in the state folder."""

    def __init__(self, folder: str) -> None:
        self._marker = MarkerFile(folder, "paused")

    @property
    def paused(self) -> bool:
        """True if the file exists."""
        return self._marker.exists

    def set(self, *, paused: bool) -> None:
        """Make the file or remove it. Raises `OSError`."""
        if paused:
            self._marker.create()
        else:
            self._marker.remove()
