"""A file that was written while it was sent: what was sent of it is known, and is removed with it; it is read again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.sync_rig import Rig

MIB = 1 << 20

Write = Callable[[Path, int], None]


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """The sandbox holds a file that does not change; deletions are mirrored."""
    bare.wait_for_programs()
    bare.keys["sandbox"]["deletions"] = "mirror"
    bare.write("stay")
    bare.sync()
    return bare


def cut(path: Path, step: int) -> None:
    os.truncate(path, max(10, path.stat().st_size - 300_000 - step))


def copied_and_cut(path: Path, step: int) -> None:
    """As logrotate does; it is soon as long as before."""
    content = path.read_bytes()
    path.write_bytes(b"%08d" % step)
    with path.open("ab") as file:
        file.write(content)


def overwritten(path: Path, step: int) -> None:
    with path.open("r+b") as file:
        file.write(b"%08d" % step)


def torn(rig: Rig, write: Write, size_bytes: int) -> Path:
    """The file, after a sync during which it was written all the time, so that what was sent is of no one instant."""
    path = rig.workspace / "torn"
    path.write_bytes(os.urandom(size_bytes))
    real, steps = os.pread, iter(range(1_000))

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        content = real(descriptor, count, offset)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            write(path, next(steps))
        return content

    with pytest.MonkeyPatch.context() as patch:
        # The reads are the only moments that this process has while it packs a small file.
        patch.setattr("syncd.scan.file_reader.os.pread", pread)
        patch.setattr("syncd.scan.file_reader.os.preadv", lambda *_: 0, raising=False)
        outcome, _ = rig.sync()
    assert outcome.follow_up == outcome.torn == ("torn",)
    return path


@pytest.mark.parametrize("write", [cut, overwritten, copied_and_cut])
@pytest.mark.parametrize("size_bytes", [500_000, 3 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
def test_renamed(rig: Rig, write: Write, size_bytes: int, *, restarted: bool) -> None:
    """The copy under the old name is removed, and nothing says that it was changed in the sandbox."""
    path = torn(rig, write, size_bytes)
    path.rename(rig.workspace / "renamed")
    if restarted:
        rig.restart()
    rig.sync()
    assert sorted(os.listdir(rig.sandbox.workspace)) == ["renamed", "stay"]
    assert (rig.sandbox.workspace / "renamed").read_bytes() == (rig.workspace / "renamed").read_bytes()
    assert rig.cycle.warnings == []
