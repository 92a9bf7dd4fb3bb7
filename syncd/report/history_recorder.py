"""The history of a workspace: follows each sync, and writes a line before an archive leaves, and one at the end.

So a failed and a killed sync have their paths. The file is bounded: a line is added in one write, without a flush, and
a full file is cut to its newer half. One process writes at a time, the one with the workspace's lock.
"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Callable

from msgspec.structs import replace

from syncd.core.clock import Clock, utc
from syncd.core.durable_file import read_file, write_whole
from syncd.core.text import one_line, redacted
from syncd.report.history import (
    START,
    ChangeCounts,
    ErrorRecord,
    SyncEnding,
    SyncRecord,
    archive_record,
    decoded,
    encoded,
    should_record,
)
from syncd.sync.outcome import Outcome
from syncd.sync.sent_archive import SentArchive
from syncd.sync.sync_reason import SyncReason

MOST_BYTES = 8 << 20
# About 5,000 paths of an archive, so that a first snapshot leaves the other syncs their place.
NAMED_BYTES = 1 << 20


class HistoryStore:
    """The file of the history: lines of JSON, the newest last."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "history.jsonl")

    def append(self, record: SyncRecord) -> None:
        """Add a line. Raises `OSError`; the older lines stay."""
        line = encoded(record)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.path, flags, 0o600)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes + len(line) < MOST_BYTES:
                # A crash or a full disk may have cut the last line short.
                is_torn = size_bytes > 0 and os.pread(descriptor, 1, size_bytes - 1) != b"\n"
                os.write(descriptor, b"\n" + line if is_torn else line)
                return
        finally:
            os.close(descriptor)
        content = read_file(self.path, MOST_BYTES)
        newer = content[content.find(b"\n", len(content) // 2) + 1 : content.rfind(b"\n") + 1]
        write_whole(self.path, newer + line)

    def read(self) -> tuple[list[SyncRecord], int]:
        """Return the syncs, the newest last, and the number of damaged lines. No file: no syncs.

        Raises `OSError`, also where something else than a file has the name.
        """
        try:
            return decoded(read_file(self.path, MOST_BYTES))
        except FileNotFoundError:
            return [], 0

    def forget_names(self) -> None:
        """Remove which paths left, and damaged lines, which may name some. Raises `OSError`."""
        records, damaged = self.read()
        if damaged or any(row.path is not None for record in records for row in record.rows()):
            write_whole(self.path, b"".join(encoded(replace(record, sent=())) for record in records))


class HistoryRecorder:
    """Records syncs; called in their order: `begin`, then `sending`, `sent` and `retrying`, then one of the endings.

    Calls outside of a sync are ignored, and a history that cannot be written costs the record, never the sync.
    `sandbox_id` is called late in each sync, since a sandbox may be acquired in it. `named_bytes` is how much of the
    names of paths is kept of each archive.
    """

    def __init__(self, clock: Clock, store: HistoryStore, sandbox_id: Callable[[], str], named_bytes: int) -> None:
        self._clock = clock
        self._store = store
        self._sandbox_id = sandbox_id
        self._named_bytes = named_bytes
        self._is_first = True
        self._before: SyncRecord | None = None  # the last that succeeded or failed
        self._last: tuple[str, SentArchive] | None = None  # the last that left without success, and in which sync
        self._record: SyncRecord | None = None  # of the sync under way
        self._has_line = False
        self._began_s = 0.0
        self._sent_bytes = self._sent_now = 0  # by all uploads, and by this one

    def begin(self, why: str) -> None:
        """A sync begins; `why` is the value of a `SyncReason`."""
        if self._is_first and why == SyncReason.RESCAN.value:
            why = START  # what changed while nothing ran, or by another configuration
        self._is_first = self._has_line = False
        self._began_s, self._sent_bytes, self._sent_now = self._clock.monotonic_s(), 0, 0
        before = self._before
        self._record = SyncRecord(
            id=base64.b32encode(os.urandom(5)).decode()[:6].lower(),
            at=utc(self._clock.wall_s()),
            why=why,
            failures_before=before.failures_before + 1 if before and before.is_failure else 0,
        )

    def sending(self, archive: SentArchive) -> None:
        """Record the paths of an archive of which bytes are about to leave; called again at each attempt.

        One that a sync before sent without success is recorded there: a server that is down all night gets the same
        archive again and again.
        """
        if self._record is None:
            return
        if self._last is not None and (archive is self._last[1] or archive.repeats(self._last[1])):
            if self._last[0] != self._record.id:
                self._record = replace(self._record, repeats=self._last[0])
            return
        at = utc(self._clock.wall_s())
        record = replace(self._record, at=at, sandbox=one_line(self._sandbox_id()))
        with contextlib.suppress(OSError):
            self._store.append(replace(record, sent=(archive_record(at, archive, self._named_bytes),)))
            self._has_line, self._last = True, (record.id, archive)

    def sent(self, sent_bytes: int) -> None:
        """The number of bytes of an upload that were sent; each upload begins with 0."""
        self._sent_bytes += max(0, sent_bytes - self._sent_now)
        self._sent_now = sent_bytes

    def retrying(self, step: str, message: str) -> None:
        """An attempt failed, and another one follows after a wait."""
        if self._record is not None:
            error = ErrorRecord(step, one_line(redacted(message), 600))
            self._record = replace(self._record, error=error, attempts=self._record.attempts + 1)

    def succeeded(self, outcome: Outcome) -> None:
        """It succeeded."""
        if self._record is not None:
            found, change = outcome.change, None
            if found is not None:
                change = ChangeCounts(len(found.added), len(found.changed), len(found.removed))
            self._record = replace(self._record, files=outcome.files, change=change)
            self.end(SyncEnding.INITIALIZED if outcome.sync else SyncEnding.UNCHANGED)

    def failed(self, step: str, message: str) -> None:
        """It failed, after all its attempts."""
        if self._record is not None:
            self._record = replace(self._record, error=ErrorRecord(step, one_line(redacted(message), 600)))
            self.end(SyncEnding.FAILED)

    def end(self, ending: SyncEnding) -> None:
        """It ended so."""
        if self._record is None:
            return
        record = replace(
            self._record,
            at=utc(self._clock.wall_s()),
            outcome=ending,
            sent_bytes=self._sent_bytes,
            seconds=round(self._clock.monotonic_s() - self._began_s, 3),
            sandbox=one_line(self._sandbox_id()),
        )
        self._record = None
        if self._has_line or should_record(record, self._before):
            with contextlib.suppress(OSError):
                self._store.append(record)
        if record.is_success or record.is_failure:
            self._before = record
        if ending is SyncEnding.INITIALIZED:
            self._last = None
