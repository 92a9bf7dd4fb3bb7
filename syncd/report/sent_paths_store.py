"""The file of the paths that left: a line of JSON for each archive, the newest last. A damaged line is skipped.

Names that are not UTF-8 have lone surrogates in JSON, as `syncd diff --json` has them; msgspec refuses those, json does
not.
"""

from __future__ import annotations

import contextlib
import json
import os

import msgspec

from syncd.report.line_file import LineFile
from syncd.report.sent_paths import ArchiveRecord

NAME = "sent-paths.jsonl"
MOST_BYTES = 8 << 20


class SentPathsStore:
    """The paths that left one workspace."""

    def __init__(self, folder: str) -> None:
        self._file = LineFile(folder, NAME, MOST_BYTES)
        self.path = self._file.path

    def append(self, sent: ArchiveRecord) -> None:
        """Add a line. Raises `OSError`; the older lines stay."""
        self._file.append(json.dumps(msgspec.to_builtins(sent), separators=(",", ":")).encode())

    def read(self) -> tuple[list[ArchiveRecord], int]:
        """Return the records, the newest last, and the number of damaged lines. No file: no records.

        Raises `OSError`, also where something else than a file has the name.
        """
        found: list[ArchiveRecord] = []
        damaged = 0
        for line in self._file.lines():
            try:
                found.append(msgspec.convert(json.loads(line), ArchiveRecord))
            except (msgspec.MsgspecError, ValueError, RecursionError):
                damaged += 1
        return found, damaged

    def remove(self) -> None:
        """Delete the file. Raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
