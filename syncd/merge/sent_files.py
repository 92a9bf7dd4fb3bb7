"""Finds what was sent as a path: here, as far as it is still the same, else where its bytes are kept."""

from __future__ import annotations

import os

from msgspec import Struct

from syncd.archive.base_store import BaseStore
from syncd.core.errors import TryLater
from syncd.core.text import shown_path
from syncd.merge.path_changes import digest_at
from syncd.model.entry import Entry, Kind, SeenEntry, Stamp, arrived_digest, with_copy
from syncd.scan.file_reader import stamp_of
from syncd.store.blobs import Blobs


class SentFiles(Struct, frozen=True):
    """The versions that were sent from one workspace. Those that are not in it are copied to the folder `scratch`."""

    workspace: str
    scratch: str
    base_store: BaseStore
    blobs: Blobs

    def version(self, path: str, entry: Entry) -> SeenEntry | None:
        """Return a file or link that was sent, with its content; None if its bytes are gone."""
        if entry.kind is Kind.SYMLINK:
            return with_copy(entry, "")
        place, digest = os.path.join(self.workspace, path), arrived_digest(entry)
        if _is_as_read(place, entry.stamp) or digest_at(place) == digest != b"":
            return with_copy(entry, place)
        if self.blobs.is_whole(digest):
            return with_copy(entry, self.blobs.path(digest))
        content = self.base_store.get(path, digest)
        if content is None:
            return None
        copy = os.path.join(self.scratch, f"sent-{digest.hex()}")
        with open(copy, "wb") as file:
            file.write(content)
        return with_copy(entry, copy)

    def needed_version(self, path: str, entry: Entry) -> SeenEntry:
        """Return what `version` does. Raises `TryLater` if its bytes are gone."""
        version = self.version(path, entry)
        if version is None:
            what = f"what was sent as '{shown_path(path)}' is not known any more, as it was changed here since"
            raise TryLater(what, "run `syncd push`, then try again")
        return version


def _is_as_read(place: str, stamp: Stamp | None) -> bool:
    """True if the file is as it was when its content was read."""
    try:
        return stamp is not None and stamp_of(os.lstat(place)) == stamp
    except OSError:
        return False
