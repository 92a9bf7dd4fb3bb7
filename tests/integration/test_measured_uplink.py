"""The uplink's speed measured by real uploads to the emulator."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from syncd.core.errors import Stop
from syncd.remote import bucket
from syncd.remote.bucket import Uplink
from tests.integration.sync_rig import RecordingObserver, Rig, rigged

SIZE_BYTES = 3 << 20
LIMIT_KIB_PER_S = 1024


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """An incompressible workspace, and a limit that makes scripted time pass during uploads."""
    monkeypatch.setattr(bucket, "set_kernel_pacing", lambda *_: None)  # the kernel would take real time
    with rigged(tmp_path) as rig:
        rig.keys["sync"]["upload_limit_kib_per_second"] = LIMIT_KIB_PER_S
        fill(rig, 1)
        yield rig


def uplink_of(rig: Rig) -> Uplink:
    assert rig.cycle.services is not None
    return rig.cycle.services.delivery.uplink


def fill(rig: Rig, seed: int) -> None:
    (rig.workspace / "noise").write_bytes(Random(seed).randbytes(SIZE_BYTES))


def test_the_next_archive_is_as_small_as_it_can_be(rig: Rig) -> None:
    """After a slow upload everything is packed with the dense codec, also when a damaged spool is repaired."""
    text = Path(socket.__file__).read_bytes()
    for number in range(40):
        (rig.workspace / f"text{number}").write_bytes(b"%d\n" % number + text)
    (fast, _), _ = rig.sync(), rig.write("a", "1")
    (dense, _), _ = rig.sync(), rig.write("a", "2")
    assert fast.sync is not None
    assert dense.sync is not None
    saved = fast.sync.archive_bytes - dense.sync.archive_bytes
    assert saved > 0.05 * (fast.sync.archive_bytes - SIZE_BYTES)
    for chunk in (rig.folder / "cache").rglob("*.chunk"):
        chunk.write_bytes(b"")
    (again, _) = rig.sync()
    assert again.sync is not None
    assert again.sync.archive_bytes == pytest.approx(dense.sync.archive_bytes, abs=100)


def test_an_uploaded_archive_is_not_rebuilt(rig: Rig) -> None:
    """The codec changes only after the initialize: a crash before it causes no second upload."""
    rig.emulator.faults.script("initialize: 503")
    with pytest.raises(Stop):
        rig.sync(observer=RecordingObserver(rig.clock, ends=Stop()))
    assert uplink_of(rig) == Uplink()
    rig.restart()
    rig.sync()
    assert rig.asked().count("upload") == 1
