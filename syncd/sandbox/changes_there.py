"""Remembers for `status` which paths are changed in the sandbox, as of the last look of any process at each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from msgspec import Struct

from syncd.core.durable_file import CacheFile
from syncd.remote.target import Target


class KnownChanges(Struct, frozen=True):
    """The changed paths of a sandbox, and the time of the last look at any path."""

    target: Target
    looked_at: str | None = None
    paths: tuple[bytes, ...] = ()


class ChangesThere:
    """The record for one sandbox. Commands write it beside a daemon: of two looks at once, one may go unnoticed."""

    def __init__(self, state_folder: str, target: Target) -> None:
        self._file = CacheFile(state_folder, "changes-there", KnownChanges, -1)
        self._target = target

    def load(self) -> KnownChanges:
        """Return what is known; nothing of another sandbox."""
        record = self._file.load()
        return record if record is not None and record.target.same_sandbox(self._target) else KnownChanges(self._target)

    def note(self, changed: Iterable[str], among: Callable[[str], bool], looked_at: str | None = None) -> None:
        """Note that of the paths `among` others these are changed; None: it is known without a look."""
        before = self.load()
        others = (path for path in before.paths if not among(os.fsdecode(path)))
        paths = sorted({*others, *map(os.fsencode, changed)})
        with contextlib.suppress(OSError):  # it costs the status, not the sync
            self._file.save(KnownChanges(self._target, looked_at or before.looked_at, tuple(paths)))


def all_paths(_path: str) -> bool:
    """True for any path."""
    return True
