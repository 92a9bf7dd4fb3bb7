"""The record of the paths that left: which are named, which counted, and the lines for scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from syncd.core.clock import utc
from syncd.report import sent_paths as module
from syncd.report.history import SyncEnding, SyncRecord
from syncd.report.sent_paths import (
    ArchiveRecord,
    SentPath,
    UnnamedPaths,
    archive_record,
    archive_total,
    encoded_lines,
    sent_by_sync,
)
from syncd.scan.entry import Entry, Kind
from syncd.scan.manifest import Manifest
from syncd.sync.sent_archive import SentArchive
from tests.clock import NOON_S

NOON = utc(NOON_S)


def file(text: str, mtime_s: int = 1, **more: Any) -> Entry:
    return Entry(Kind.FILE, 0o644, mtime_s, len(text), digest=text.encode(), **more)


DIRECTORY = Entry(Kind.DIRECTORY, 0o755, 1)
BASE = Manifest({"d": DIRECTORY, "d/same": file("same"), "d/new": file("old"), "gone": file("gone"), "x": file("x")})
NOW = Manifest(
    {
        "d": DIRECTORY,
        "d/link": Entry(Kind.SYMLINK, 0o777, 1, target="same"),
        "d/new": file("new"),
        "d/same": file("same", 2),  # touched
        "d/torn": Entry(Kind.FILE, 0o644, 1, 4, sent_digest=b"half"),
        "x": Entry(Kind.FILE, 0o755, 1, 1, digest=b"x"),
    }
)


def archive(entries: Manifest, base: Manifest | None = None, *removed: str, is_whole: bool = True) -> SentArchive:
    return SentArchive("identity", entries, base or Manifest(), removed, is_whole)


def record_of(sent: SentArchive) -> ArchiveRecord:
    return archive_record("abcdef", NOON, "box", sent)


def test_a_whole_archive_with_a_base() -> None:
    """What is other than there is named, with size and digest of the sent bytes; what is as there is counted."""
    found = record_of(archive(NOW, BASE, "gone"))
    assert (found.sync, found.at, found.sandbox, found.archive) == ("abcdef", NOON, "box", "whole")
    assert found.named == (
        SentPath("added", "d/link"),
        SentPath("changed", "d/new", 3, b"new".hex()),
        SentPath("added", "d/torn", 4, b"half".hex()),
        SentPath("changed", "x", 1, b"x".hex()),
        SentPath("removed", "gone"),
    )
    assert found.unnamed == (UnnamedPaths("unchanged", 2, 4),)
    assert archive_total(found) == (6, 12)


def test_a_whole_archive_without_a_base() -> None:
    """Where it is not known what is there, all is added."""
    found = record_of(archive(NOW))
    assert {row.change for row in found.named} == {"added"}
    assert ([row.path for row in found.named], found.unnamed) == (list(NOW), ())


def test_a_partial_archive_names_all() -> None:
    """Also what is sent once more as it was, as with a removal."""
    found = record_of(archive(Manifest({"d/same": file("same"), "n": file("n")}), BASE, "gone", is_whole=False))
    assert found.named == (
        SentPath("added", "n", 1, b"n".hex()),
        SentPath("unchanged", "d/same", 4, b"same".hex()),
        SentPath("removed", "gone"),
    )
    assert (found.archive, found.unnamed) == ("partial", ())


@pytest.mark.parametrize("base", [None, BASE], ids=["no base", "base"])
def test_a_huge_archive_is_counted(monkeypatch: pytest.MonkeyPatch, base: Manifest | None) -> None:
    """Beyond the bound paths are counted by change, with their sizes; none is lost between the two."""
    monkeypatch.setattr(module, "MOST_BYTES", 2_000)
    entries = NOW | {f"many/{number}": file("1234567") for number in range(500)} | {"many": DIRECTORY}
    found = record_of(archive(entries, base, *(f"gone{number}" for number in range(3))))
    assert 5 < len(found.named) < 17
    assert archive_total(found) == (len(entries), entries.content_bytes)
    counts = {rest.change: rest.paths for rest in found.unnamed}
    assert counts["added"] > 450
    assert ("unchanged" in counts) == (base is not None)
    assert len(json.dumps(list(encoded_lines(found, None)))) < 20_000


def test_removed_paths_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of many files that is gone fills only what is left of the record."""
    monkeypatch.setattr(module, "MOST_BYTES", 2_000)
    found = record_of(archive(NOW, BASE, *(f"gone/{number}" for number in range(500))))
    removed = [row for row in found.named if row.change == "removed"]
    assert {rest.change: rest.paths for rest in found.unnamed}["removed"] == 500 - len(removed)
    assert [row.path for row in found.named][:4] == ["d/link", "d/new", "d/torn", "x"]
    assert archive_total(found) == (6, 12)


def test_the_lines_for_scripts() -> None:
    """One for each path and for the rest of each change, ASCII alone, whatever the names are."""
    sent = ArchiveRecord(
        sync="abcdef",
        at=NOON,
        sandbox="box",
        archive="whole",
        named=(SentPath("added", "n\udcff\x1b\n", 3, "ab"),),
        unnamed=(UnnamedPaths("unchanged", 2, 9),),
    )
    first, second = encoded_lines(sent, SyncEnding.FAILED)
    assert json.loads(first) == {
        "version": 1,
        "sync": "abcdef",
        "at": "2026-11-24T13:20:11Z",
        "sandbox": "box",
        "outcome": "failed",
        "archive": "whole",
        "change": "added",
        "path": "n\udcff\x1b\n",
        "paths": 1,
        "bytes": 3,
        "sha256": "ab",
    }
    assert '"n\\udcff\\u001b\\n"' in first
    rest = {"change": "unchanged", "path": None, "paths": 2, "bytes": 9, "sha256": None}
    assert json.loads(second) == json.loads(first) | rest


def test_an_archive_that_was_sent_again() -> None:
    """Its paths are those of the sync that sent it first, under the id and time of the later one."""
    sent = [record_of(archive(NOW)), archive_record("second", utc(NOON_S + 1), "box", archive(NOW))]

    def synced(sync_id: str | None, paths_in: str | None, at_s: float) -> SyncRecord:
        at = utc(at_s)
        return SyncRecord(id=sync_id, at=at, began=at, why="changes", outcome="failed", paths_in=paths_in)

    records = [
        synced("abcdef", "abcdef", NOON_S),
        synced("again", "abcdef", NOON_S + 5),
        synced("lost", "dropped", NOON_S + 6),
        synced("silent", None, NOON_S + 7),
        synced(None, None, NOON_S + 8),
    ]
    found = sent_by_sync(sent, records)
    assert list(found) == ["abcdef", "second", "again"]
    (again,) = found["again"]
    assert (again.sync, again.at, again.named) == ("again", utc(NOON_S + 5), sent[0].named)


def test_equal_archives() -> None:
    """Equal are those of the same bytes and removals; bytes that cannot be told from others are equal to none."""
    one = archive(NOW, BASE, "gone")
    assert one.repeats(archive(NOW, BASE, "gone"))
    assert not one.repeats(archive(NOW, BASE, "x"))
    assert not one.repeats(SentArchive("other", NOW, BASE, ["gone"], is_whole=True))
    unknown = SentArchive("", NOW, BASE, [], is_whole=True)
    assert not unknown.repeats(unknown)
