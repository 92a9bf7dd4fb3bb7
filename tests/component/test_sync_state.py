"""The state of the last sync on disk: manifests, the uploaded archive, and uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from syncd.core.durable_file import sealed
from syncd.model.entry import Entry, Kind, Stamp
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrlStore
from syncd.store.state_db import StateDb
from syncd.sync.sync_state import SyncState, Uploaded
from syncd.sync.taken import TakenPath
from tests.clock import ScriptedClock
from tests.component.sample_records import MANIFEST, TARGET
from tests.recorded import damage

OTHER = Target(TARGET.base_url, "other", "us")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[StateDb]:
    with closing(StateDb(str(tmp_path))) as db:
        yield db


def test_any_manifest_is_restored(db: StateDb) -> None:
    """Names of any bytes, unusual times and the largest inodes survive."""
    SyncState(db).record_initialized(TARGET, MANIFEST)
    again, warnings = SyncState(db).initialized(TARGET)
    assert again == MANIFEST
    assert list(again or {}) == list(MANIFEST)
    assert warnings == []
    assert SyncState(db).recorded_target() == TARGET
    assert SyncState(db).initialized(OTHER) == (None, [])


def test_an_empty_manifest_is_a_base(db: StateDb) -> None:
    """A sandbox that is known to hold nothing is not one of which nothing is known."""
    SyncState(db).record_initialized(TARGET, Manifest())
    assert SyncState(db).initialized(TARGET) == (Manifest(), [])


def test_what_may_be_in_the_sandbox(db: StateDb) -> None:
    """It is known from the mark on until an answer is recorded, in any region of the sandbox, to the next process."""
    sync_state = SyncState(db)
    assert sync_state.unanswered(TARGET) == ()
    sync_state.mark_uncertain(TARGET, [MANIFEST])
    asia = Target(TARGET.base_url, "box", "asia")
    again = SyncState(db)
    again.initialized(asia)
    assert again.uncertain
    assert again.unanswered(asia) == (dict(MANIFEST),)
    assert again.unanswered(OTHER) == ()
    sync_state.record_initialized(TARGET, Manifest())
    again.initialized(TARGET)
    assert not again.uncertain
    assert again.unanswered(TARGET) == ()


def test_several_versions_of_one_path(db: StateDb) -> None:
    """Each unanswered archive sent one: none of them is the agent's, to the next process neither."""
    versions = [Entry(Kind.FILE, 0o644, 1, number, digest=bytes([number])) for number in range(3)]
    parts = ({"a": versions[0], "b": versions[0]}, {"a": versions[1]}, {"a": versions[2], "c": versions[2]})
    sync_state, sent = SyncState(db), [Manifest(part) for part in parts]
    for count in range(1, 4):
        sync_state.mark_uncertain(TARGET, sent[:count])
    found = SyncState(db).unanswered(TARGET)
    assert [[manifest[path] for manifest in found if path in manifest] for path in "abc"] == [
        versions,
        [versions[0]],
        [versions[2]],
    ]


def test_a_damaged_record_of_an_upload(db: StateDb, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what its loss costs."""
    SyncState(db).record_uploaded(Uploaded(TARGET, "identity", 7, "ab"))
    assert SyncState(db).uploaded(TARGET) == Uploaded(TARGET, "identity", 7, "ab")
    assert SyncState(db).uploaded(Target(TARGET.base_url, "box", "asia")) is None
    damage(tmp_path, "uploaded")
    assert SyncState(db).uploaded(TARGET) is None
    assert "at most one archive is uploaded once more" in caplog.text


@pytest.mark.parametrize(
    ("recorded", "now", "believed"), [("1", "1", True), ("1", "2", False), ("", "1", False), ("1", "", True)]
)
def test_contents_that_other_rules_searched_are_read_again(
    db: StateDb, recorded: str, now: str, *, believed: bool
) -> None:
    """A process that searches for other secrets ignores their stamps, and uses their digests."""
    SyncState(db, recorded).record_initialized(TARGET, MANIFEST)
    manifest, _ = SyncState(db, now).initialized(TARGET)
    without = {path: msgspec.structs.replace(entry, stamp=None) for path, entry in MANIFEST.items()}
    assert manifest == (MANIFEST if believed else without)
    assert SyncState(db).initialized(TARGET)[0] == MANIFEST  # one that searches for nothing trusts them


def test_what_was_brought_home(db: StateDb) -> None:
    """It counts as sent while the base is as it was then; whose contents were searched is not forgotten."""
    daemon, command = SyncState(db, "search"), SyncState(db)
    daemon.record_initialized(TARGET, MANIFEST)
    theirs = Entry(Kind.FILE, 0o644, 5, 5, digest=b"t" * 32)
    link = MANIFEST["l"]
    taken = [TakenPath("new", None, theirs), TakenPath("d", theirs, None), TakenPath("l", link, theirs, True)]
    command.record_taken(TARGET, taken)
    assert daemon.was_changed(TARGET)
    expected = MANIFEST | {"new": theirs}
    del expected["l"]
    assert daemon.initialized(TARGET)[0] == expected
    assert not daemon.was_changed(TARGET)


def test_the_recorded_fields_of_a_content(db: StateDb) -> None:
    """The digest of what was sent of a changed file is kept; a stamp that a write may have left unchanged is not."""
    torn = Entry(Kind.FILE, 0o644, 1, 5, sent_digest=b"sent")
    young = Entry(Kind.FILE, 0o644, 1, 5, stamp=Stamp(1, 2, 3, 4), digest=b"d")
    SyncState(db).record_initialized(TARGET, Manifest({"torn": torn, "young": young}))
    found, _ = SyncState(db).initialized(TARGET)
    assert found == {"torn": torn, "young": msgspec.structs.replace(young, stamp=None)}


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgspec.msgpack.encode({"version": 1}), msgspec.msgpack.encode([1])])
def test_a_valid_file_with_an_invalid_record(tmp_path: Path, payload: bytes) -> None:
    """It is set aside although its checksum is right."""
    (tmp_path / "lease").write_bytes(sealed(payload))
    assert UploadUrlStore(str(tmp_path), ScriptedClock()).load(TARGET) is None
    assert (tmp_path / "lease.damaged").exists()
