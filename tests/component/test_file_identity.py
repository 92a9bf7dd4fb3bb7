"""The workspace's directory is distinguished from a later one with its inode number; any time can be recorded."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from syncd.scan import file_reader
from syncd.scan.file_reader import FileIdentity, identity_of, lasting_identity_of, stamp_of


def test_the_birth_time_distinguishes_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is known of both; else device and inode do."""
    descriptor = os.open(tmp_path, os.O_PATH)
    try:
        lasting, brief = lasting_identity_of(descriptor), identity_of(os.fstat(descriptor))
        monkeypatch.setattr(file_reader, "_statx", None)
        assert lasting_identity_of(descriptor) == brief
    finally:
        os.close(descriptor)
    assert lasting.birth_ns
    assert lasting.matches(brief)
    assert brief.matches(lasting)
    later = FileIdentity(lasting.device, lasting.inode, lasting.birth_ns + 1)
    assert not lasting.matches(later)
    assert not brief.matches(FileIdentity(brief.device, brief.inode + 1))


@pytest.mark.parametrize("mtime_s", [-(1 << 40), -1, 0, 1 << 40])
def test_any_time_of_a_file_can_be_recorded(mtime_s: int) -> None:
    """Some file systems, as tmpfs, have times for which nanoseconds need more than 64 bits."""
    status = os.stat_result((0o100644, 1, 1, 1, 0, 0, 0, 0, mtime_s, 0), {"st_mtime_ns": mtime_s * 10**9})
    stamp = stamp_of(status)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(stamp.mtime_ns)) == stamp.mtime_ns
