"""State files as an earlier version wrote them: they are read, and written the same to the byte.

The bytes were written by the code of 25 November 2026, before the records had a common base.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.archive.codec import Codec
from syncd.core.durable_file import StateFile, sealed
from syncd.core.file_identity import FileIdentity
from syncd.remote.sandbox_lifetime import AcquiredSandbox
from syncd.remote.target import Target
from syncd.remote.uplink import Uplink
from syncd.remote.uplink_store import UplinkStore
from syncd.remote.upload_url import UploadUrl
from syncd.remote.upload_url_store import UploadUrlStore
from syncd.sandbox.agent_file import AgentNotes
from syncd.sandbox.blocked_paths import _BlockedRecord
from syncd.sandbox.hook_rules import HookRun
from syncd.sandbox.leftovers import Leftovers
from syncd.sandbox.leftovers_store import LeftoversStore
from syncd.sandbox.partial_archives import _Proof
from syncd.sandbox.pending_removals import PendingRemoval, PendingRemovals
from syncd.sandbox.provider import AcquiredSandboxStore
from syncd.scan.entry import Entry, Kind, Stamp
from syncd.scan.manifest import Manifest
from syncd.sync.sync_state import SyncState
from tests.clock import ScriptedClock

TARGET = Target("https://api.example.com", "box", "us")
MANIFEST = Manifest(
    {
        "d": Entry(Kind.DIRECTORY, 0o755, 1),
        "d/n\udcff": Entry(Kind.FILE, 0o644, 2, 3, stamp=Stamp(4, 5, 6, 7), digest=b"\1\2", written_back=True),
        "l": Entry(Kind.SYMLINK, 0o777, 0, target="t\udc80"),
        "t": Entry(Kind.FILE, 0o644, 2, 3, sent_digest=b"\3"),
    }
)
LEFTOVERS = Leftovers({"g": [Entry(Kind.FILE, 0, 0, 3, "", None, b"\4")]}, frozenset({"g"}), 5, 6, frozenset({"g"}))
ACQUIRED = AcquiredSandbox("box", 1.0, 2.0, {"git": "https://mcp"})
BLOCKED = _BlockedRecord(TARGET, [(b"p\xff", "d")], b"mark")
PROOF = _Proof(TARGET, [b"m\xff"])
IDENTITY = FileIdentity(1, 2, b"h", 3)
MOUNTS = (b"a/b", b"odd\xff")
HOOK_RUN = HookRun("place", ("run", "it"), 2, False, "failed")
UPLINK = Uplink((1e6, 2e6, 3e6), Codec.DENSE, 4.0)
UPLOAD_URL = UploadUrl("https://h/o", 1000.0, 1800.0)

WRITTEN = {
    "agent": (
        b"syncd-state 1 4ee5cefd7abf8876e39e0a469aa1c7223943b1cc633290f25f2fc6f2fddd40b9\n"
        b"\x83\xa7version\x01\xa4told\x85\xa5place\xa5place"
        b"\xa7command\x92\xa3run\xa2it\xa8attempts\x02\xa4d"
        b"one\xc2\xa7failure\xa6failed\xa5seals\x91\xa4s"
        b"eal"
    ),
    "blocked": (
        b"syncd-state 1 c1c8ba5bab0115941cc9e48dc2f842ee9fb33f6d1780f328106c2b161054e49d\n"
        b"\x83\xa6target\x83\xa8base_url\xb7https://a"
        b"pi.example.com\xaasandbox_id\xa3bo"
        b"x\xa6region\xa2us\xa5found\x91\x92\xc4\x02p\xff\xa1d\xa4ma"
        b"rk\xc4\x04mark"
    ),
    "initialized": (
        b"syncd-state 1 6fe4a0291478dd111eddf0397304759242a4eac0856f99cfee804a89b99569a6\n"
        b"\x84\xa7version\x01\xa6target\x83\xa8base_url\xb7https://api."
        b"example.com\xaasandbox_id\xa3box\xa6region\xa2us\xabdir"
        b"ectories\x92\x93\xc4\x00\xc4\x08d\x00l\x00t\x00t\x80\xc4/\x93\x99\xa1d\xcd\x01\xed\x01\x00\xa0\xc0\xc4\x00\xc4\x00\xc2"
        b"\x99\xa1l\xcd\x01\xff\x00\x00\xa0\xc0\xc4\x00\xc4\x00\xc2\x99\xa1f\xcd\x01\xa4\x02\x03\xa0\xc0\xc4\x00\xc4\x01\x03\xc2\x93\xc4\x01d\xc4\x02n\xff\xc4"
        b"\x16\x91\x99\xa1f\xcd\x01\xa4\x02\x03\xa0\x94\x04\x05\x06\x07\xc4\x02\x01\x02\xc4\x00\xc3\xa8searched\xa5rules"
    ),
    "lease": (
        b"syncd-state 1 c418ee4bcacd00d7f9990bcd4a79a58bcf7450a203ee9cbf05f56c46464222bc\n"
        b"\x84\xa6target\x83\xa8base_url\xb7https://a"
        b"pi.example.com\xaasandbox_id\xa3bo"
        b"x\xa6region\xa2us\xa3url\xabhttps://h/o\xab"
        b"ends_wall_s\xcbA\xda\xd2t\xfd\x00\x00\x00\xa6life_s\xcb"
        b"@\x9c \x00\x00\x00\x00\x00"
    ),
    "lingering": (
        b"syncd-state 1 076d3d1d25377b78f11a0896774af223b9fb74e8bd056cc623e094e4db43c738\n"
        b"\x87\xa7version\x01\xa6target\x83\xa8base_url\xb7"
        b"https://api.example.com\xaasand"
        b"box_id\xa3box\xa6region\xa2us\xa4rows\x91\x95\xc4"
        b"\x01g\xa1f\x03\xc4\x00\xc4\x01\x04\xa7changed\x91\xc4\x01g\xa7unnam"
        b"ed\x05\xa5files\x06\xa6secret\x91\xc4\x01g"
    ),
    "perhaps-there": (
        b"syncd-state 1 be7e64a512dea87c2b14bec384bf78218bbed3a44ec8b3be94d11ed5c11910d8\n"
        b"\x84\xa7version\x01\xa6target\x83\xa8base_url\xb7https://api."
        b"example.com\xaasandbox_id\xa3box\xa6region\xa2us\xa9man"
        b"ifests\x91\x91\x93\xc4\x00\xc4\x01d\xc4\x10\x91\x99\xa1d\xcd\x01\xed\x01\x00\xa0\xc0\xc4\x00\xc4\x00\xc2\xa8searche"
        b"d\xa5rules"
    ),
    "sandbox": (
        b"syncd-state 1 c7fb4f6cb1bd421d35016b7d0042caa992b00dc1ed6d7b5dcdde66d2ab4d48ea\n"
        b"\x84\xa7version\x01\xa8base_url\xb7https://"
        b"api.example.com\xa7tenancy\x84\xaasan"
        b"dbox_id\xa3box\xafacquired_wall_s\xcb"
        b"?\xf0\x00\x00\x00\x00\x00\x00\xabends_wall_s\xcb@\x00\x00\x00\x00\x00\x00"
        b"\x00\xa7servers\x81\xa3git\xabhttps://mcp\xafa"
        b"cquired_wall_s\x91\xcb?\xf0\x00\x00\x00\x00\x00\x00"
    ),
    "small-archives": (
        b"syncd-state 1 15416f05db36544b80c50bca895c13b4fc195ab4c7b82a848f86c320fae203c0\n"
        b"\x82\xa6target\x83\xa8base_url\xb7https://a"
        b"pi.example.com\xaasandbox_id\xa3bo"
        b"x\xa6region\xa2us\xa7missing\x91\xc4\x02m\xff"
    ),
    "started": (
        b"syncd-state 1 b16c38c66bedf4ce91ffce1b08dcbdb9247a113ed6c0545b063f72abdfd9bc84\n"
        b"\x82\xa7version\x01\xa5notes\x91\x82\xa6target\x83\xa8b"
        b"ase_url\xb7https://api.example."
        b"com\xaasandbox_id\xa3box\xa6region\xa2us"
        b"\xa4name\xa3job"
    ),
    "uplink": (b'{"version":1,"rates":[1000000.0,2000000.0,3000000.0],"codec":"dense","told_at_s":4.0}'),
    "uploaded": (
        b"syncd-state 1 b3d00eb6950f7234731b75439e1c2f5d3f349c7d6ca9df6a40f44b41da3f0c0a\n"
        b"\x85\xa7version\x01\xa6target\x83\xa8base_url\xb7"
        b"https://api.example.com\xaasand"
        b"box_id\xa3box\xa6region\xa2us\xa8identit"
        b"y\xa8identity\xaasize_bytes\x07\xa6sha25"
        b"6\xa2ab"
    ),
    "mounts": (
        b"syncd-state 1 9045f47ad494876fa67e8f4767b9e25a59ab01ba11a9a7e1d046c7bca2370562\n"
        b"\x92\xc4\x03a/b\xc4\x04odd\xff"
    ),
    "workspace": (
        b"syncd-state 1 b566f255ef7e7cae67ce3b222646214d7430871cf2ccbe95dba97471afd4d991\n\x94\x01\x02\xc4\x01h\x03"
    ),
}


# Records that earlier versions wrote in other forms.
EARLIER = {
    "perhaps-there": (
        b"syncd-state 1 f835e3619fbee3e1bc3432f2ba1943d2a979110f83eef05da87e419a3faf04ea\n"
        b"\x84\xa7version\x01\xa6target\x83\xa8base_url\xb7"
        b"https://api.example.com\xaasand"
        b"box_id\xa3box\xa6region\xa2us\xa4rows\x91\x99\xc4"
        b"\x01d\xa1d\xcd\x01\xed\x01\x00\xc4\x00\xc0\xc4\x00\xc4\x00\xa8searched\xa5ru"
        b"les"
    ),
    "initialized": (
        b"syncd-state 1 4e5706c886cac6718aecdb05b42e84ca21cee58ac50d117b84ecb9e64518ce58\n"
        b"\x84\xa7version\x01\xa6target\x83\xa8base_url\xb7"
        b"https://api.example.com\xaasand"
        b"box_id\xa3box\xa6region\xa2us\xa4rows\x94\x99\xc4"
        b"\x01d\xa1d\xcd\x01\xed\x01\x00\xc4\x00\xc0\xc4\x00\xc4\x00\x99\xc4\x04d/n\xff\xa1f\xcd\x01\xa4"
        b"\x02\x03\xc4\x00\x94\x04\x05\x06\x07\xc4\x02\x01\x02\xc4\x00\x99\xc4\x01l\xa1l\xcd\x01\xff\x00\x00\xc4\x02"
        b"t\x80\xc0\xc4\x00\xc4\x00\x99\xc4\x01t\xa1f\xcd\x01\xa4\x02\x03\xc4\x00\xc0\xc4\x00\xc4\x01\x03\xa8s"
        b"earched\xa5rules"
    ),
}


def _clock() -> ScriptedClock:
    return ScriptedClock(wall=1_800_000_000.0, boottime=500.0)


def _agent(folder: str) -> AgentNotes:
    notes = AgentNotes(folder)
    notes.recall()
    return notes


def _uploaded(folder: str) -> object:
    kept = SyncState(folder).uploaded(TARGET)
    return kept and (kept.identity, kept.size_bytes, kept.sha256)


def _save_agent(folder: str) -> None:
    notes = AgentNotes(folder)
    notes.record_run(HOOK_RUN)
    notes.record_digests(["seal"])


READ: dict[str, tuple[Callable[[str], object], object]] = {
    "agent": (lambda folder: (_agent(folder).last_run, _agent(folder).digests), (HOOK_RUN, ["seal"])),
    "blocked": (lambda folder: StateFile(folder, "blocked", _BlockedRecord).load(), BLOCKED),
    "initialized": (lambda folder: SyncState(folder).initialized(TARGET), (MANIFEST, [])),
    "lease": (lambda folder: UploadUrlStore(folder, _clock()).load(TARGET), UPLOAD_URL),
    "lingering": (lambda folder: LeftoversStore(folder, TARGET).load(), LEFTOVERS),
    "perhaps-there": (lambda folder: SyncState(folder).possibly_applied(TARGET), ({"d": MANIFEST["d"]},)),
    "sandbox": (lambda folder: AcquiredSandboxStore(folder, TARGET.base_url).load(), (ACQUIRED, [1.0])),
    "small-archives": (lambda folder: StateFile(folder, "small-archives", _Proof).load(), PROOF),
    "started": (lambda folder: PendingRemovals(folder, TARGET).notes, [PendingRemoval(TARGET, "job")]),
    "uplink": (lambda folder: UplinkStore(folder).load(), UPLINK),
    "uploaded": (_uploaded, ("identity", 7, "ab")),
    "mounts": (lambda folder: StateFile(folder, "mounts", tuple[bytes, ...]).load(), MOUNTS),
    "workspace": (lambda folder: StateFile(folder, "workspace", FileIdentity).load(), IDENTITY),
}

SAVE: dict[str, Callable[[str], None]] = {
    "agent": _save_agent,
    "blocked": lambda folder: StateFile(folder, "blocked", _BlockedRecord).save(BLOCKED),
    "initialized": lambda folder: SyncState(folder, "rules").record_initialized(TARGET, MANIFEST),
    "lease": lambda folder: UploadUrlStore(folder, _clock()).save(TARGET, UPLOAD_URL),
    "lingering": lambda folder: LeftoversStore(folder, TARGET).save(LEFTOVERS),
    "perhaps-there": lambda folder: SyncState(folder, "rules").record_possibly_applied(
        TARGET, [Manifest({"d": MANIFEST["d"]})]
    ),
    "sandbox": lambda folder: AcquiredSandboxStore(folder, TARGET.base_url).save(ACQUIRED, [1.0]),
    "small-archives": lambda folder: StateFile(folder, "small-archives", _Proof).save(PROOF),
    "started": lambda folder: PendingRemovals(folder, TARGET).note("job"),
    "uplink": lambda folder: UplinkStore(folder).save(UPLINK),
    "uploaded": lambda folder: SyncState(folder).record_uploaded(TARGET, "identity", 7, "ab"),
    "mounts": lambda folder: StateFile(folder, "mounts", tuple[bytes, ...]).save(MOUNTS),
    "workspace": lambda folder: StateFile(folder, "workspace", FileIdentity).save(IDENTITY),
}


@pytest.mark.parametrize(("name", "written"), [*WRITTEN.items(), *EARLIER.items()])
def test_an_earlier_record_is_read(tmp_path: Path, name: str, written: bytes) -> None:
    """Nothing of it is lost, and it stays where it is."""
    (tmp_path / name).write_bytes(written)
    read, expected = READ[name]
    assert read(str(tmp_path)) == expected
    assert {path.name for path in tmp_path.iterdir()} == {name}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_record_is_written_as_before(tmp_path: Path, name: str) -> None:
    """An earlier version can read it after a downgrade."""
    SAVE[name](str(tmp_path))
    assert (tmp_path / name).read_bytes() == WRITTEN[name]


@pytest.mark.parametrize("name", [name for name in WRITTEN if b"version" in WRITTEN[name]])
def test_a_newer_record_is_not_used(tmp_path: Path, name: str) -> None:
    """Whatever else it holds; one with a checksum is set aside for the version that wrote it."""
    written = WRITTEN[name]
    if name == "uplink":
        newer = written.replace(b'"version":1', b'"version":2')
    else:
        newer = sealed(written.partition(b"\n")[2].replace(b"\xa7version\x01", b"\xa7version\x02"))
    assert newer != written
    (tmp_path / name).write_bytes(newer)
    read, expected = READ[name]
    assert read(str(tmp_path)) != expected
    assert (tmp_path / f"{name}.damaged").exists() is (name != "uplink")
