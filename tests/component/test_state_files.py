"""Files on disk: whole or set aside, private, and never trusted beyond the process that they belong to."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from syncd.archive.codec import Codec
from syncd.core.directories import Directories
from syncd.core.durable_file import MarkerFile, StateFile
from syncd.core.errors import ConfigError, Locked
from syncd.core.lock import Lock, holder
from syncd.daemon.pause_file import PauseFile
from syncd.remote.target import Target
from syncd.remote.uplink import Uplink
from syncd.remote.uplink_store import UplinkStore
from syncd.remote.upload_url import UploadUrl
from syncd.remote.upload_url_store import UploadUrlStore
from syncd.report.status_store import StatusStore, read_last, read_status
from syncd.scan.manifest import Entry, Kind, Manifest, Stamp
from syncd.sync.status_document import SandboxName, State, Status
from syncd.sync.sync_state import SyncState, Uploaded
from tests.clock import ScriptedClock

TARGET = Target("https://api.example.com", "box", "us")
MANIFEST: Manifest = {
    "d": Entry(Kind.DIRECTORY, 0o1755, -1),
    "d/n\udcff\nü": Entry(
        Kind.FILE,
        0o644,
        2**40,
        2**50,
        stamp=Stamp(-5, 2**62, 2**64 - 1, 2**33),
        digest=bytes(range(32)),
        written_back=True,
    ),
    "l": Entry(Kind.SYMLINK, 0o777, 0, target="t\udc80"),
}


NOTHING = Status(running=False, pid=None, state=State.STOPPED, workspace="/w", sandbox=SandboxName("box", "u", "us"))
SOMETHING = msgspec.structs.replace(NOTHING, syncs=3)
KNOWN = Uplink((1e6, 2e6, 3e6), Codec.DENSE, 4.0)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _empty(content: bytes) -> bytes:
    return b""


def _garbage(content: bytes) -> bytes:
    return b"\0" * len(content)


def _flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def _newer(content: bytes) -> bytes:
    return content.replace(b"syncd-state 1", b"syncd-state 2")


HARM = pytest.mark.parametrize("harm", [_cut, _empty, _garbage, _flipped, _newer])


@HARM
def test_a_damaged_record_is_set_aside(tmp_path: Path, harm: object) -> None:
    """A cut, invalid or newer record reads as none, causes one warning, and is kept for inspection."""
    assert callable(harm)
    record = StateFile(str(tmp_path), "thing")
    record.write(b"payload\nwith lines")
    path = tmp_path / "thing"
    path.write_bytes(harm(path.read_bytes()))
    payload, warning = record.read()
    assert payload is None
    assert warning is not None
    assert "'thing'" in warning.what
    assert (tmp_path / "thing.damaged").exists()
    assert record.read() == (None, None)
    record.write(b"new")
    assert record.read() == (b"new", None)


def test_a_record_is_private_and_whole(tmp_path: Path) -> None:
    """Records are 0600 with any umask, and no temporary file is left beside them."""
    before = os.umask(0)
    try:
        StateFile(str(tmp_path), "thing").write(b"payload")
        PauseFile(str(tmp_path)).set(paused=True)
        Lock(str(tmp_path)).acquire()
    finally:
        os.umask(before)
    assert {path.name for path in tmp_path.iterdir()} == {"thing", "paused", "lock"}
    assert {mode_of(path) for path in tmp_path.iterdir()} == {0o600}


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    """A temporary file is overwritten; a link in its place is not followed."""
    (tmp_path / "thing.new").write_bytes(b"half")
    record = StateFile(str(tmp_path), "thing")
    record.write(b"payload")
    assert record.read() == (b"payload", None)
    victim = tmp_path / "victim"
    (tmp_path / "thing.new").symlink_to(victim)
    record.write(b"other")
    assert record.read() == (b"other", None)
    assert not victim.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"thing"}


def _folder(path: Path) -> None:
    path.mkdir()


def _full_folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep/file").write_text("x")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # its path must be short
        server.bind(path.name)


def _link_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def _link_to_a_file(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("not ours")
    path.symlink_to(victim)


KINDS = [_folder, _full_folder, _fifo, _socket, _link_nowhere, _link_to_itself, _link_to_a_file]
RECORDS = ["initialized", "uploaded", "lease", "uplink", "status.json"]


def _read_all(folder: str) -> list[object]:
    """Return what each of the five records holds."""
    sync_state = SyncState(folder)
    upload_url = UploadUrlStore(folder, ScriptedClock()).load(TARGET)
    return [
        sync_state.initialized(TARGET)[0],
        sync_state.uploaded(TARGET),
        upload_url and upload_url.url,
        UplinkStore(folder).load(),
        read_last(folder, NOTHING),
    ]


def _write_all(folder: str) -> None:
    clock = ScriptedClock()
    sync_state = SyncState(folder)
    sync_state.record_initialized(TARGET, MANIFEST)
    sync_state.record_uploaded(TARGET, "identity", 7, "ab")
    UploadUrlStore(folder, clock).save(TARGET, UploadUrl("https://h/o", clock.boottime + 1000, 1800))
    UplinkStore(folder).save(KNOWN)
    StatusStore(folder).write(SOMETHING)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_something_else_in_a_records_place(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    """Another kind of file reads as no record, is not waited for, and is moved aside by the next write."""
    for _ in range(3):
        for name in RECORDS:
            kind(tmp_path / name)
        assert _read_all(str(tmp_path)) == [None, None, None, Uplink(), NOTHING]
        _write_all(str(tmp_path))
        assert _read_all(str(tmp_path)) == [
            MANIFEST,
            Uploaded(1, TARGET, "identity", 7, "ab"),
            "https://h/o",
            KNOWN,
            SOMETHING,
        ]
        for name in RECORDS:
            (tmp_path / name).unlink()
    if (tmp_path / "victim").exists():
        assert (tmp_path / "victim").read_text() == "not ours"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_the_warning_names_where_the_other_file_is(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    """One warning names the record and the new place of the other file."""
    kind(tmp_path / "initialized")
    _, (warning,) = SyncState(str(tmp_path)).initialized(TARGET)
    assert "'initialized'" in warning.what
    assert "initialized.damaged" in str(warning)
    assert os.path.lexists(tmp_path / "initialized.damaged")
    assert SyncState(str(tmp_path)).initialized(TARGET) == (None, [])


@pytest.mark.parametrize(
    ("name", "cost"), [("uploaded", ", and at most one archive is uploaded once more"), ("lease", "new upload URL")]
)
def test_what_a_small_record_costs(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, cost: str) -> None:
    """A damaged record is logged even if its loss is too small for the status."""
    (tmp_path / name).write_bytes(b"garbage")
    SyncState(str(tmp_path)).uploaded(TARGET)
    UploadUrlStore(str(tmp_path), ScriptedClock()).load(TARGET)
    (record,) = caplog.records
    assert f"'{name}'" in record.getMessage()
    assert cost in record.getMessage()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", [_fifo, _socket, _link_nowhere, _link_to_itself, _link_to_a_file])
def test_something_else_beside_a_record(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    """A write neither waits for a file with the name of its temporary file, nor writes into it."""
    for name in RECORDS:
        kind(tmp_path / f"{name}.new")
        (tmp_path / "victim").unlink(missing_ok=True)
    _write_all(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == set(RECORDS)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_a_marker_is_any_file_of_its_name(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    """Uncertainty and pause hold while any file has the name, and end with its removal."""
    pause, sync_state = PauseFile(str(tmp_path)), SyncState(str(tmp_path))
    for _ in range(2):
        kind(tmp_path / "paused")
        kind(tmp_path / "unsure") if kind is not _link_to_a_file else (tmp_path / "unsure").symlink_to("victim")
        assert pause.paused
        pause.set(paused=True)
        sync_state.initialized(TARGET)
        assert sync_state.uncertain
        sync_state.mark_uncertain()
        pause.set(paused=False)
        sync_state.record_initialized(TARGET, MANIFEST)
        assert not pause.paused
        assert not sync_state.uncertain
        assert not os.path.lexists(tmp_path / "unsure")


def test_uncertainty_outlives_its_process(tmp_path: Path) -> None:
    """Until an answer is recorded each process is uncertain; what was known before stays known."""
    SyncState(str(tmp_path)).record_initialized(TARGET, MANIFEST)
    SyncState(str(tmp_path)).mark_uncertain()
    for _ in range(2):
        sync_state = SyncState(str(tmp_path))
        assert sync_state.initialized(TARGET)[0] == MANIFEST
        assert sync_state.uncertain
    sync_state.record_initialized(TARGET, MANIFEST)
    again = SyncState(str(tmp_path))
    again.initialized(TARGET)
    assert not again.uncertain


def test_an_answer_that_cannot_be_recorded(tmp_path: Path) -> None:
    """The process that received it is certain, the next one is not; the next request is marked again."""
    sync_state = SyncState(str(tmp_path))
    sync_state.record_initialized(TARGET, {})
    sync_state.mark_uncertain()
    (tmp_path / "initialized.new").mkdir()
    with pytest.raises(IsADirectoryError):
        sync_state.record_initialized(TARGET, MANIFEST)
    assert not sync_state.uncertain
    (tmp_path / "unsure").unlink()
    sync_state.mark_uncertain()
    later = SyncState(str(tmp_path))
    assert later.initialized(TARGET) == ({}, [])
    assert later.uncertain


_ON_A_FULL_DISK = """
import os, sys
from syncd.sync.sync_state import SyncState, Uploaded
from syncd.remote.target import Target
from syncd.archive.codec import Codec
from syncd.remote.uplink import Uplink
folder, target = sys.argv[1], Target("https://api.example.com", "box", "us")
journal = SyncState(folder)
journal.record_initialized(target, {})
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
    """Without space for the mark the records are removed: a crash causes a full sync."""
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


def test_any_manifest_round_trips(tmp_path: Path) -> None:
    """Names of any bytes, odd times and the largest inodes are restored."""
    SyncState(str(tmp_path)).record_initialized(TARGET, MANIFEST)
    again, warnings = SyncState(str(tmp_path)).initialized(TARGET)
    assert again == MANIFEST
    assert list(again or {}) == list(MANIFEST)
    assert warnings == []


@pytest.mark.parametrize(
    ("target", "initialized", "uploaded"),
    [
        (TARGET, True, True),
        (Target(TARGET.base_url, "box", "asia"), True, False),
        (Target(TARGET.base_url, "other", "us"), False, False),
        (Target("https://api.eu.example.com", "box", "us"), False, False),
    ],
)
def test_records_are_of_one_sandbox(tmp_path: Path, target: Target, *, initialized: bool, uploaded: bool) -> None:
    """A record of one sandbox is none of another; that of an uploaded archive is of one region only."""
    sync_state = SyncState(str(tmp_path))
    sync_state.record_initialized(TARGET, MANIFEST)
    sync_state.record_uploaded(TARGET, "identity", 7, "ab")
    assert (sync_state.initialized(target)[0] is not None) is initialized
    assert (sync_state.uploaded(target) is not None) is uploaded


def test_possibly_applied_manifests(tmp_path: Path) -> None:
    """Until an answer is recorded they count, for the same sandbox in any region, also for the next process."""
    sync_state = SyncState(str(tmp_path))
    assert sync_state.possibly_applied(TARGET) == {}
    sync_state.record_possibly_applied(TARGET, MANIFEST)
    assert {path.name for path in tmp_path.iterdir()} == {"perhaps-there"}
    assert SyncState(str(tmp_path)).possibly_applied(TARGET) == MANIFEST
    assert sync_state.possibly_applied(Target(TARGET.base_url, "box", "asia")) == MANIFEST
    assert sync_state.possibly_applied(Target(TARGET.base_url, "other", "us")) == {}
    sync_state.record_initialized(TARGET, {})
    assert sync_state.possibly_applied(TARGET) == {}
    newer = {"version": 2, "target": TARGET, "rows": [[b"a", "f", 0, 0, 0, b"", None, b""]]}
    StateFile(str(tmp_path), "perhaps-there").write(msgspec.msgpack.encode(newer))
    assert sync_state.possibly_applied(TARGET) == {}


def test_a_damaged_record_of_possibly_applied_manifests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what its loss costs; a newer record of an upload is ignored silently."""
    (tmp_path / "perhaps-there").write_bytes(b"garbage")
    assert SyncState(str(tmp_path)).possibly_applied(TARGET) == {}
    ((name, _, text),) = caplog.record_tuples
    assert name == "syncd.journal"
    assert text.endswith("what came unanswered may stay in the sandbox")
    newer = Uploaded(2, TARGET, "identity", 7, "ab")
    StateFile(str(tmp_path), "uploaded").write(msgspec.msgpack.encode(newer))
    assert SyncState(str(tmp_path)).uploaded(TARGET) is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("recorded", "now", "believed"), [("1", "1", True), ("1", "2", False), ("", "1", False), ("1", "", True)]
)
def test_contents_searched_for_other_secrets_are_read_again(
    tmp_path: Path, recorded: str, now: str, *, believed: bool
) -> None:
    """A process that searches for other secrets does not trust their stamps; it does trust their digests."""
    SyncState(str(tmp_path), recorded).record_initialized(TARGET, MANIFEST)
    manifest, _ = SyncState(str(tmp_path), now).initialized(TARGET)
    without = {path: msgspec.structs.replace(entry, stamp=None) for path, entry in MANIFEST.items()}
    assert manifest == (MANIFEST if believed else without)
    assert SyncState(str(tmp_path)).initialized(TARGET)[0] == MANIFEST  # one that searches for nothing believes them


def test_a_mark_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs the next process a request; the others are removed, and what was recorded counts."""
    sync_state = SyncState(str(tmp_path))
    sync_state.mark_uncertain()
    sync_state.record_uploaded(TARGET, "identity", 7, "ab")
    sync_state.record_possibly_applied(TARGET, MANIFEST)

    def refuse(mark: MarkerFile) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(MarkerFile, "take_away", refuse)
    sync_state.record_initialized(TARGET, MANIFEST)
    assert not sync_state.uncertain
    assert {path.name for path in tmp_path.iterdir()} == {"initialized", "unsure"}


def test_recorded_contents(tmp_path: Path) -> None:
    """The digest of a file that changed while sent is kept; a stamp that a write may have left unchanged is not."""
    torn = Entry(Kind.FILE, 0o644, 1, 5, sent_digest=b"sent")
    young = Entry(Kind.FILE, 0o644, 1, 5, stamp=Stamp(1, 2, 3, 4), digest=b"d")
    SyncState(str(tmp_path)).record_initialized(TARGET, {"torn": torn, "young": young})
    found, _ = SyncState(str(tmp_path)).initialized(TARGET)
    assert found == {"torn": torn, "young": msgspec.structs.replace(young, stamp=None)}


def test_uncertainty_is_marked_once_for_each_answer(tmp_path: Path) -> None:
    """A mark that a user removes is not written again before something else is recorded."""
    sync_state = SyncState(str(tmp_path))
    assert not sync_state.uncertain
    sync_state.mark_uncertain()
    assert sync_state.uncertain
    assert [path.name for path in tmp_path.iterdir()] == ["unsure"]
    (tmp_path / "unsure").unlink()
    sync_state.mark_uncertain()
    assert list(tmp_path.iterdir()) == []
    assert sync_state.uncertain
    (tmp_path / "unsure").touch()
    later = SyncState(str(tmp_path))
    later.initialized(TARGET)
    (tmp_path / "unsure").unlink()
    later.mark_uncertain()
    assert list(tmp_path.iterdir()) == []


def test_a_warning_is_logged_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be fixed before the status shows it."""
    (tmp_path / "initialized").write_bytes(b"garbage")
    _, (warning,) = SyncState(str(tmp_path)).initialized(TARGET)
    assert [(name, text) for name, _, text in caplog.record_tuples] == [("syncd.journal", str(warning))]
    assert warning.remedy.endswith("everything is uploaded anew once")


def test_a_missing_state_folder(tmp_path: Path) -> None:
    """Nothing is known, and there is no error."""
    sync_state = SyncState(str(tmp_path / "gone"))
    assert sync_state.initialized(TARGET) == (None, [])
    assert sync_state.uploaded(TARGET) is None
    assert sync_state.possibly_applied(TARGET) == {}
    assert not sync_state.uncertain


def test_initialized_ends_uploaded(tmp_path: Path) -> None:
    """Once a manifest is initialized, no uploaded archive waits for it; both can be forgotten."""
    sync_state = SyncState(str(tmp_path))
    sync_state.record_uploaded(TARGET, "identity", 7, "ab")
    sync_state.record_initialized(TARGET, MANIFEST)
    assert sync_state.uploaded(TARGET) is None
    sync_state.record_uploaded(TARGET, "identity", 7, "ab")
    sync_state.forget_upload()
    assert sync_state.uploaded(TARGET) is None
    assert sync_state.initialized(TARGET)[0] == MANIFEST


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgspec.msgpack.encode({"version": 1}), msgspec.msgpack.encode([1])])
@pytest.mark.parametrize("name", ["initialized", "uploaded", "lease"])
def test_a_sound_file_with_a_senseless_record(tmp_path: Path, name: str, payload: bytes) -> None:
    """A record with a valid checksum and invalid content is set aside, and costs a full sync."""
    StateFile(str(tmp_path), name).write(payload)
    sync_state = SyncState(str(tmp_path))
    manifest, warnings = sync_state.initialized(TARGET)
    assert manifest is None
    assert bool(warnings) is (name == "initialized")
    assert sync_state.uploaded(TARGET) is None
    assert UploadUrlStore(str(tmp_path), ScriptedClock()).load(TARGET) is None
    assert (tmp_path / f"{name}.damaged").exists()


def test_a_newer_record_is_set_aside(tmp_path: Path) -> None:
    """A downgrade does not misread what a newer version wrote."""
    newer = {"version": 2, "target": TARGET, "rows": []}
    StateFile(str(tmp_path), "initialized").write(msgspec.msgpack.encode(newer))
    manifest, warnings = SyncState(str(tmp_path)).initialized(TARGET)
    assert manifest is None
    assert len(warnings) == 1


def test_an_upload_url_outlives_its_process(tmp_path: Path) -> None:
    """After a restart, or a reboot with a new boottime, it expires by the wall clock."""
    clock = ScriptedClock()
    UploadUrlStore(str(tmp_path), clock).save(TARGET, UploadUrl("https://h/o", clock.boottime + 1000, 1800))
    clock.go_on(400)
    clock.boottime = 10.0
    upload_url = UploadUrlStore(str(tmp_path), clock).load(TARGET)
    assert upload_url is not None
    assert upload_url.url == "https://h/o"
    assert upload_url.ends_s == pytest.approx(610, abs=0.01)


@pytest.mark.parametrize("moved_s", [1001, 100_000, -900, -100_000])
def test_an_upload_url_beyond_its_lifetime_is_not_used(tmp_path: Path, moved_s: float) -> None:
    """It has expired, or a clock set back gives it a longer lifetime than it had."""
    clock = ScriptedClock()
    UploadUrlStore(str(tmp_path), clock).save(TARGET, UploadUrl("https://h/o", clock.boottime + 1000, 1800))
    clock.wall += moved_s
    assert UploadUrlStore(str(tmp_path), clock).load(TARGET) is None


def test_an_upload_url_is_of_one_sandbox_and_region(tmp_path: Path) -> None:
    """It is not used for another; a refused one is forgotten."""
    clock = ScriptedClock()
    file = UploadUrlStore(str(tmp_path), clock)
    file.save(TARGET, UploadUrl("https://h/o", clock.boottime + 1000, 1800))
    assert file.load(Target(TARGET.base_url, "box", "asia")) is None
    assert file.load(TARGET) is not None
    file.forget()
    assert file.load(TARGET) is None


_HOLD = """
import sys
from syncd.core.lock import Lock
from syncd.report.status_store import StatusStore
from syncd.sync.status_document import SandboxName, State, Status
import os
folder = sys.argv[1]
Lock(folder).acquire()
status = Status(
    running=True, pid=os.getpid(), state=State.UPLOADING, workspace="/w", sandbox=SandboxName("box", "u", "us"),
    syncs=3, retry_at="2026-11-24T13:20:11Z", pending=True,
)
StatusStore(folder).write(status)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path, first: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock and has written its status, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", first + _HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_one_instance_a_workspace(tmp_path: Path) -> None:
    """A second process is refused with the first one's id; a killed one leaves neither a lock nor a status."""
    assert holder(str(tmp_path)) is None
    with another_process(tmp_path) as process:
        assert holder(str(tmp_path)) == process.pid
        with pytest.raises(Locked, match=f"process {process.pid}") as caught:
            Lock(str(tmp_path)).acquire()
        assert caught.value.exit_code == 75
        status = read_status(str(tmp_path), NOTHING)
        assert (status.running, status.pid, status.state) == (True, process.pid, State.UPLOADING)
        process.kill()
        process.wait()
        status = read_status(str(tmp_path), NOTHING)
        assert (status.running, status.pid, status.state, status.retry_at) == (False, None, State.STOPPED, None)
        assert (status.syncs, status.pending) == (3, True)
        assert holder(str(tmp_path)) is None
    lock = Lock(str(tmp_path))
    lock.acquire()
    lock.release()


_REMOVED_MEANWHILE = """
import os, sys
removed = []
def remove(event, args):
    if event == "fcntl.lockf" and len(removed) < 3:
        removed.append(True)
        os.unlink(f"{sys.argv[1]}/lock")
        if len(removed) == 2:
            open(f"{sys.argv[1]}/lock", "w").close()
sys.addaudithook(remove)
"""


def test_a_lock_that_is_removed_as_it_is_taken(tmp_path: Path) -> None:
    """The held file is the one at the path, not one that lost its name."""
    with another_process(tmp_path, _REMOVED_MEANWHILE) as process:
        assert holder(str(tmp_path)) == process.pid
        with pytest.raises(Locked):
            Lock(str(tmp_path)).acquire()


def test_the_status_of_another_process_is_not_used(tmp_path: Path) -> None:
    """A dead daemon's document is not taken for that of the present holder of the lock."""
    with another_process(tmp_path):
        ours = msgspec.structs.replace(NOTHING, running=True, pid=1, state=State.WATCHING)
        StatusStore(str(tmp_path)).write(ours)
        assert not read_status(str(tmp_path), NOTHING).running


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"version": 1}', b"null", b'{"workspace": "\xff"}'])
def test_an_invalid_status(tmp_path: Path, content: bytes) -> None:
    """An invalid or newer document reads as nothing known."""
    (tmp_path / "status.json").write_bytes(content)
    assert read_last(str(tmp_path), NOTHING) == NOTHING
    newer = msgspec.json.encode(msgspec.structs.replace(NOTHING, version=2, syncs=9))
    (tmp_path / "status.json").write_bytes(newer)
    assert read_last(str(tmp_path), NOTHING) == NOTHING


def test_an_unchanged_status_is_not_written(tmp_path: Path) -> None:
    """An idle daemon does not write to the disk."""
    file = StatusStore(str(tmp_path))
    file.write(NOTHING)
    before = (tmp_path / "status.json").stat().st_ino
    file.write(NOTHING)
    assert (tmp_path / "status.json").stat().st_ino == before
    file.write(msgspec.structs.replace(NOTHING, syncs=1))
    assert read_last(str(tmp_path), NOTHING).syncs == 1
    assert mode_of(tmp_path / "status.json") == 0o600


def test_a_pause_is_a_file(tmp_path: Path) -> None:
    """Setting or removing it twice is no error, and another process sees it."""
    pause = PauseFile(str(tmp_path))
    assert not pause.paused
    pause.set(paused=True)
    pause.set(paused=True)
    assert PauseFile(str(tmp_path)).paused
    pause.set(paused=False)
    pause.set(paused=False)
    assert not pause.paused


def test_folders_are_private(tmp_path: Path) -> None:
    """Both folders and their own parents are 0700, also if they existed before."""
    folders = Directories(str(tmp_path / "state/syncd/p"), str(tmp_path / "cache/syncd/p"))
    Path(folders.state).mkdir(parents=True)
    for path in (tmp_path / "state/syncd", Path(folders.state)):
        path.chmod(0o755)
    before = os.umask(0)
    try:
        folders.make()
    finally:
        os.umask(before)
    own = [Path(folders.state), Path(folders.state).parent, Path(folders.spool), Path(folders.spool).parent]
    assert {mode_of(path) for path in own} == {0o700}
    folders.make()


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    """A file in a folder's place gives one line with a remedy."""
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Directories(str(tmp_path / "state/syncd/p"), str(tmp_path / "cache/syncd/p")).make()
