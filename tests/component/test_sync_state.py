"""The state of the last sync on disk: manifests, the uploaded archive, and uncertainty."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from syncd.core.durable_file import sealed
from syncd.model.entry import Entry, Kind, Stamp
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrlStore
from syncd.sync.sync_state import SyncState
from tests.clock import ScriptedClock
from tests.component.sample_records import MANIFEST, TARGET

_ON_A_FULL_DISK = """
import os, sys
from syncd.model.manifest import Manifest
from syncd.sync.sync_state import SyncState, Uploaded
from syncd.remote.target import Target
from syncd.archive.chunking import Codec
from syncd.remote.uplink import Uplink
folder, target = sys.argv[1], Target("https://api.example.com", "box", "us")
journal = SyncState(folder)
journal.record_initialized(target, Manifest())
journal.record_uploaded(target, "identity", 7, "ab")
try:
    for number in range(1000):
        open(f"{folder}/{number}", "w").close()
except OSError as failure:
    print(failure.strerror)
journal.mark_uncertain()
journal.forget_upload()
after = SyncState(folder)
print(after.initialized(target), after.uploaded(target), "unsure" in os.listdir(folder))
"""


def test_uncertainty_on_a_full_disk(tmp_path: Path) -> None:
    """Without room for the marker the records are removed: a crash then costs a full sync, no false record."""
    script = 'mount -t tmpfs -o size=1m,nr_inodes=12 none "$0" || exit 9; exec "$1" -c "$2" "$0"'
    command = ["unshare", "-m", "sh", "-c", script, str(tmp_path), sys.executable, _ON_A_FULL_DISK]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode == 9 or done.stderr.startswith("unshare"):
        pytest.skip("no mount namespace")
    assert done.stderr == ""
    assert done.stdout == "No space left on device\n(None, []) None False\n"


def test_any_manifest_is_restored(tmp_path: Path) -> None:
    """Names of any bytes, unusual times and the largest inodes survive."""
    SyncState(str(tmp_path)).record_initialized(TARGET, MANIFEST)
    again, warnings = SyncState(str(tmp_path)).initialized(TARGET)
    assert again == MANIFEST
    assert list(again or {}) == list(MANIFEST)
    assert warnings == []


def test_entries_that_may_be_in_the_sandbox(tmp_path: Path) -> None:
    """They are known until an answer is recorded, in any region of the sandbox, to the next process too."""
    sync_state = SyncState(str(tmp_path))
    assert sync_state.possibly_applied(TARGET) == ()
    sync_state.record_possibly_applied(TARGET, [MANIFEST])
    assert {path.name for path in tmp_path.iterdir()} == {"perhaps-there"}
    assert SyncState(str(tmp_path)).possibly_applied(TARGET) == (dict(MANIFEST),)
    assert sync_state.possibly_applied(Target(TARGET.base_url, "box", "asia")) == (dict(MANIFEST),)
    assert sync_state.possibly_applied(Target(TARGET.base_url, "other", "us")) == ()
    sync_state.record_initialized(TARGET, Manifest())
    assert sync_state.possibly_applied(TARGET) == ()
    newer = {"version": 2, "target": TARGET, "rows": [[b"a", "f", 0, 0, 0, b"", None, b""]]}
    (tmp_path / "perhaps-there").write_bytes(sealed(msgspec.msgpack.encode(newer)))
    assert sync_state.possibly_applied(TARGET) == ()


def test_several_versions_of_one_path(tmp_path: Path) -> None:
    """Each unanswered archive sent one: none of them is the agent's, to the next process neither."""
    versions = [Entry(Kind.FILE, 0o644, 1, number, digest=bytes([number])) for number in range(3)]
    parts = ({"a": versions[0], "b": versions[0]}, {"a": versions[1]}, {"a": versions[2], "c": versions[2]})
    sent = [Manifest(part) for part in parts]
    SyncState(str(tmp_path)).record_possibly_applied(TARGET, sent)
    found = SyncState(str(tmp_path)).possibly_applied(TARGET)
    assert [[manifest[path] for manifest in found if path in manifest] for path in "abc"] == [
        versions,
        [versions[0]],
        [versions[2]],
    ]


def test_a_damaged_record_of_such_entries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what its loss costs; so it does for a newer record of an upload, which is set aside as well."""
    (tmp_path / "perhaps-there").write_bytes(b"garbage")
    assert SyncState(str(tmp_path)).possibly_applied(TARGET) == ()
    ((name, _, text),) = caplog.record_tuples
    assert name == "syncd.state"
    assert text.endswith("what came unanswered may stay in the sandbox")
    newer = {"version": 2, "target": TARGET, "identity": "identity", "size_bytes": 7, "sha256": "ab"}
    (tmp_path / "uploaded").write_bytes(sealed(msgspec.msgpack.encode(newer)))
    assert SyncState(str(tmp_path)).uploaded(TARGET) is None
    assert caplog.messages[1].startswith("the state file 'uploaded' was damaged or of another version: nothing to do")
    assert {path.name for path in tmp_path.iterdir()} == {"perhaps-there.damaged", "uploaded.damaged"}


@pytest.mark.parametrize(
    ("recorded", "now", "believed"), [("1", "1", True), ("1", "2", False), ("", "1", False), ("1", "", True)]
)
def test_contents_that_other_rules_searched_are_read_again(
    tmp_path: Path, recorded: str, now: str, *, believed: bool
) -> None:
    """A process that searches for other secrets ignores their stamps, and uses their digests."""
    SyncState(str(tmp_path), recorded).record_initialized(TARGET, MANIFEST)
    manifest, _ = SyncState(str(tmp_path), now).initialized(TARGET)
    without = {path: msgspec.structs.replace(entry, stamp=None) for path, entry in MANIFEST.items()}
    assert manifest == (MANIFEST if believed else without)
    assert SyncState(str(tmp_path)).initialized(TARGET)[0] == MANIFEST  # one that searches for nothing trusts them


def test_the_recorded_fields_of_a_content(tmp_path: Path) -> None:
    """The digest of what was sent of a changed file is kept; a stamp that a write may have left unchanged is not."""
    torn = Entry(Kind.FILE, 0o644, 1, 5, sent_digest=b"sent")
    young = Entry(Kind.FILE, 0o644, 1, 5, stamp=Stamp(1, 2, 3, 4), digest=b"d")
    SyncState(str(tmp_path)).record_initialized(TARGET, Manifest({"torn": torn, "young": young}))
    found, _ = SyncState(str(tmp_path)).initialized(TARGET)
    assert found == {"torn": torn, "young": msgspec.structs.replace(young, stamp=None)}


@pytest.mark.parametrize("marked_before", [False, True])
def test_the_mark_makes_all_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, marked_before: bool) -> None:
    """What was recorded for a request has its name flushed before the request, also if the mark was set before."""
    sync_state = SyncState(str(tmp_path))
    if marked_before:
        sync_state.mark_uncertain()
    sync_state.record_uploaded(TARGET, "identity", 7, "ab")
    sync_state.record_possibly_applied(TARGET, [MANIFEST])
    flushed: list[set[str]] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: flushed.append(set(os.listdir(descriptor))))
    sync_state.mark_uncertain()
    assert flushed == [{"uploaded", "perhaps-there", "unsure"}]


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgspec.msgpack.encode({"version": 1}), msgspec.msgpack.encode([1])])
@pytest.mark.parametrize("name", ["initialized", "uploaded", "lease"])
def test_a_valid_file_with_an_invalid_record(tmp_path: Path, name: str, payload: bytes) -> None:
    """It is set aside and costs a full sync, although its checksum is right."""
    (tmp_path / name).write_bytes(sealed(payload))
    sync_state = SyncState(str(tmp_path))
    manifest, warnings = sync_state.initialized(TARGET)
    assert manifest is None
    assert bool(warnings) is (name == "initialized")
    assert sync_state.uploaded(TARGET) is None
    assert UploadUrlStore(str(tmp_path), ScriptedClock()).load(TARGET) is None
    assert (tmp_path / f"{name}.damaged").exists()


def test_a_newer_manifest_is_set_aside(tmp_path: Path) -> None:
    """A downgrade does not misread a record of a newer version."""
    newer = {"version": 2, "target": TARGET, "rows": []}
    (tmp_path / "initialized").write_bytes(sealed(msgspec.msgpack.encode(newer)))
    manifest, warnings = SyncState(str(tmp_path)).initialized(TARGET)
    assert manifest is None
    assert len(warnings) == 1
