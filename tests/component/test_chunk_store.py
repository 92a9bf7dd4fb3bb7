"""Stored chunks between snapshots: reused, damaged, missing, discarded; and the archive of them."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from syncd.archive.chunk_store import DamagedPiece
from syncd.archive.packer import Packed
from syncd.core.errors import Stop
from syncd.core.signals import Interrupt
from syncd.model.manifest import Manifest, carry_over_digests
from tests import descriptors
from tests.component.limits import limited
from tests.component.pack_rig import PackRig, whole
from tests.instants import FEW_OR_ALL, Choice


class SpoolRig(PackRig):
    """Sixty files, and snapshots of them in the spool."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for number in range(60):
            self.write(f"d{number % 7}/f{number}", os.urandom(100) * 400)
        self.known = Manifest()

    def snapshot(self) -> Packed:
        packed = self.pack(carry_over_digests(self.known, self.scan().manifest))
        self.known = packed.manifest
        return packed

    def chunk_files(self) -> list[Path]:
        return sorted((self.spool / "chunks").iterdir())


@pytest.fixture
def rig(tmp_path: Path) -> SpoolRig:
    return SpoolRig(tmp_path)


@FEW_OR_ALL
def test_each_byte_of_the_footer_is_checked(rig: SpoolRig, choice: Choice) -> None:
    """A wrong length or checksum in it never reaches an archive."""
    kept = whole(rig.snapshot().archive)
    for from_end in choice(72):
        victim = rig.chunk_files()[0]
        content = bytearray(victim.read_bytes())
        content[-from_end] ^= 1
        victim.write_bytes(content)
        rig.start()
        archive = rig.snapshot().archive
        try:
            assert whole(archive) == kept
        except DamagedPiece:
            rig.store.clear()
            assert whole(rig.snapshot().archive) == kept


@pytest.mark.parametrize("room_bytes", [0, 1, 5_000, 99_999, 100_000])
def test_a_full_disk_leaves_nothing_unfinished(rig: SpoolRig, room_bytes: int) -> None:
    """Else each further attempt would take more space and another descriptor."""
    (rig.work / "00-large").write_bytes(os.urandom(300_000))
    before = descriptors.count()
    with limited(resource.RLIMIT_FSIZE, room_bytes), pytest.raises(OSError, match="File too large"):
        rig.snapshot()
    assert [file.name for file in rig.chunk_files() if file.suffix != ".chunk"] == []
    assert descriptors.count() == before


@pytest.mark.parametrize("checks", [1, 2, 3, 6, 30])
def test_a_stop_leaves_nothing_unfinished(rig: SpoolRig, checks: int) -> None:
    """At any point of a snapshot, no unfinished piece and no descriptor stays."""
    (rig.work / "00-large").write_bytes(os.urandom(8 << 20))
    before = descriptors.count()
    interrupt = Interrupt()
    left = iter(range(checks - 1, -1, -1))

    def check() -> None:
        if next(left) == 0:
            interrupt.request()
        interrupt.check()

    rig.start(check)
    with pytest.raises(Stop):
        rig.snapshot()
    assert [file.name for file in rig.chunk_files() if file.suffix != ".chunk"] == []
    assert descriptors.count() == before
