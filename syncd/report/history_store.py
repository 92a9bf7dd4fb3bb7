"""The history file: a line of JSON for each sync, the newest last. A damaged line is skipped."""

from __future__ import annotations

import msgspec

from syncd.report.history import SyncRecord, without_names
from syncd.report.line_file import LineFile

NAME = "history.jsonl"
MOST_BYTES = 1 << 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SyncRecord).decode


class HistoryStore:
    """The history of one workspace."""

    def __init__(self, folder: str) -> None:
        self._file = LineFile(folder, NAME, MOST_BYTES)
        self.path = self._file.path

    def append(self, record: SyncRecord) -> None:
        """Add a line. Raises `OSError`; the older lines stay."""
        self._file.append(encoded(record))

    def read(self) -> tuple[list[SyncRecord], int]:
        """Return the records, the newest last, and the number of damaged lines. No file: no records.

        Raises `OSError`, also where something else than a file has the name.
        """
        records: list[SyncRecord] = []
        damaged = 0
        for line in self._file.lines():
            try:
                records.append(_decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                damaged += 1
        return records, damaged

    def forget_names(self) -> None:
        """Remove the names of paths from all lines, and damaged lines, which may hold some. Raises `OSError`."""
        records, damaged = self.read()
        unnamed = [without_names(record) for record in records]
        if damaged or unnamed != records:
            self._file.replace(map(encoded, unnamed))


def encoded(record: SyncRecord) -> bytes:
    """The record as a line of the file and of `history --json`, without its end."""
    return _encode(record)
