"""Mounts at, above and below the workspace are reported, others are not; a path's file system is found.

The test of the monitor runs this file in a mount namespace.
"""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from syncd.watch.mounts import MountMonitor, filesystem_type

NAMESPACE = ("unshare", "--mount", "--map-root-user")
_WAIT_S = 60.0


def becomes_ready(monitor: MountMonitor) -> bool:
    """True if a change is reported in time."""
    return bool(select.select([], [], monitor.filenos(), _WAIT_S)[2])


def scenario() -> None:
    top = Path(tempfile.mkdtemp()) / "with space\\and more"
    workspace = top / "work"
    for folder in (workspace / "below", top / "workshop", top / "beside"):
        folder.mkdir(parents=True)
    monitor = MountMonitor(str(workspace))
    monitor.open()
    assert not select.select([], [], monitor.filenos(), 0)[2]
    for folder, concerns in (
        (workspace, True),
        (workspace / "below", True),
        (top, True),
        (top / "beside", False),
        (top / "workshop", False),
    ):
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
        assert becomes_ready(monitor), folder
        assert monitor.changed() is concerns, folder
        assert not monitor.changed()
        subprocess.run(["umount", folder], check=True)
        assert becomes_ready(monitor), folder
        assert monitor.changed() is concerns, folder
        assert not select.select([], [], monitor.filenos(), 0)[2]
    monitor.close()
    assert monitor.filenos() == []


def test_mounts_that_concern_the_workspace() -> None:
    """Each mount and each unmount is reported once."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are not allowed here")
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-W", "error", __file__], capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stderr


def test_without_a_list_of_mounts_nothing_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container without /proc has no such list."""
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(tmp_path / "nothing"))
    monitor = MountMonitor(str(tmp_path))
    monitor.open()
    assert monitor.filenos() == []
    assert not monitor.changed()
    monitor.close()
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


if __name__ == "__main__":
    scenario()
