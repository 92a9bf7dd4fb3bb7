"""The type of the file system that holds a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.watch.mounts import filesystem_type


def test_without_a_list_of_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container without /proc has no such list."""
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(tmp_path / "nothing"))
    assert filesystem_type(str(tmp_path)) == ""


def test_the_nearest_mount_and_the_latest_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The deepest mount point above the path decides, of two at one point the later; other lines are skipped."""
    nearest = str(tmp_path)
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"23 22 0:5 / {nearest} rw shared:7 master:1 - nfs4 server:/ rw\n"
        f"24 23 0:6 / {nearest} rw - fuse.sshfs server: rw\n"
        f"25 22 0:7 / {nearest}-beside rw - tmpfs none rw\n"
        "a line of another form\n"
    )
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(mounts))
    (tmp_path / "a b").mkdir()
    assert filesystem_type(str(tmp_path / "a b")) == "fuse.sshfs"
    assert filesystem_type("/") == "ext4"
