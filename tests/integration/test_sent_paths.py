"""The paths that the history names are those in the archives that left, with the digests of their bytes."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.directories import directories_for
from syncd.core.settings import check_config
from syncd.remote.failure import StepFailed
from syncd.report.history import NAMED_BYTES, ArchiveRecord, HistoryRecorder, HistoryStore, SyncRecord
from syncd.sync.outcome import SentArchive
from tests.agent import Agent
from tests.integration.sync_rig import RecordingObserver, Rig, rigged

Members = dict[str, str | None]


@dataclass
class AuditedObserver(RecordingObserver):
    """Also hands on what the history needs, as the daemon does."""

    recorder: HistoryRecorder | None = field(kw_only=True, default=None)

    def sending(self, archive: SentArchive) -> None:
        super().sending(archive)
        assert self.recorder is not None
        self.recorder.sending(archive)


class Audit:
    """A rig with its history, and the archives that reached the bucket."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.store = HistoryStore(directories_for(check_config(rig.keys).workspace.path, rig.environ).state)
        self.uploaded: list[Members] = []
        self.recorder = HistoryRecorder(rig.clock, self.store, "main", lambda: "box", NAMED_BYTES)
        rig.emulator.faults.on("upload", "after", lambda _: self.uploaded.append(self._newest()))

    def _newest(self) -> Members:
        return members(self.rig.emulator.archive().read_bytes())

    def recorded(self) -> list[SyncRecord]:
        return self.store.read()[0]

    def sync(self, sync_mode: SyncMode = SyncMode.CHANGED) -> tuple[ArchiveRecord, ...]:
        """Sync once, and return the archives that were recorded of it."""
        before = len(self.recorded())
        self.recorder.begin("changes")
        observer = AuditedObserver(self.rig.clock, recorder=self.recorder)
        try:
            self.recorder.succeeded(self.rig.cycle.run(sync_mode, observer))
        except StepFailed as failure:
            self.recorder.failed(failure.step, str(failure))
        return next((record.sent for record in self.recorded()[before:]), ())


def members(archive: bytes) -> Members:
    """Return the members of an archive, files with their digests."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found: Members = {}
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            found[member.name.rstrip("/")] = hashlib.sha256(file.read()).hexdigest() if file else None
        return found


def named(sent: ArchiveRecord) -> Members:
    return {row.path: row.sha256 for row in sent.rows if row.path and row.change != "removed"}


def changes(sent: ArchiveRecord) -> dict[str, str]:
    return {row.path: row.change for row in sent.rows if row.path}


def total(sent: ArchiveRecord) -> int:
    return sum(row.paths for row in sent.rows if row.change != "removed")


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    """The defaults: the archives after the first hold what changed."""
    with rigged(tmp_path) as rig:
        rig.use_defaults()
        for path in ("a", "d/b", "d/c"):
            rig.write(path, f"{path}\n")
        os.symlink("b", rig.workspace / "d/link")
        yield Audit(rig)


def test_each_archive_is_named_in_full(audit: Audit) -> None:
    """The first, the one that proves partial archives, edits, deletions and a forced push: none lacks a path."""
    first = audit.sync()
    audit.rig.write("d/b", "other\n")
    audit.rig.write("n\udcff\n", "new\n")
    edited = audit.sync()
    (audit.rig.workspace / "a").unlink()
    deleted = audit.sync()
    assert [len(sent) for sent in (first, edited, deleted)] == [2, 1, 1]
    records = [*first, *edited, *deleted]
    assert [named(sent) for sent in records] == audit.uploaded
    assert [sent.archive for sent in records] == ["whole", *["partial"] * 3]
    assert set(changes(first[0]).values()) == {"added"}
    assert changes(edited[0]) == {"d/b": "changed", "n\udcff\n": "added"}
    assert changes(deleted[0])["a"] == "removed"
    assert {change for path, change in changes(deleted[0]).items() if path != "a"} == {"unchanged"}
    (forced,) = audit.sync(SyncMode.FORCED)
    assert (named(forced), audit.uploaded[-1].keys()) == ({}, {"d", "d/b", "d/c", "d/link", "n\udcff\n"})
    assert [(row.paths, row.bytes) for row in forced.rows] == [(5, len("other\nd/c\nnew\n"))]


def test_what_stays_there_is_not_named(audit: Audit) -> None:
    """A path that only the agent changed is in no archive, a whole one neither, nor in its record."""
    audit.sync()
    Agent(audit.rig.sandbox.workspace).write("d/b", "the agent's\n")
    audit.rig.write("a", "other\n")
    audit.sync()
    audit.rig.keys["sync"]["archive"] = "full"
    audit.rig.restart()
    audit.rig.write("d/c", "other\n")
    sent = audit.sync()
    assert [total(each) for each in sent] == [len(found) for found in audit.uploaded[-len(sent) :]]
    assert "d/b" not in audit.uploaded[-1]
    assert changes(sent[-1]) == {"d/c": "changed"}
