"""Mounts at, above and below the workspace are reported, others are not, without polling.

Mounting is done in a mount namespace: the test is this file, run in one.
"""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from syncd.watch.mounts import MountMonitor

NAMESPACE = ("unshare", "--mount", "--map-root-user")
_WAIT_S = 5.0


def reported(monitor: MountMonitor) -> bool:
    """True if the descriptor becomes ready in time."""
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
        assert reported(monitor), folder
        assert monitor.changed() is concerns, folder
        assert not monitor.changed()
        subprocess.run(["umount", folder], check=True)
        assert reported(monitor), folder
        assert monitor.changed() is concerns, folder
        assert not select.select([], [], monitor.filenos(), 0)[2]
    monitor.close()
    assert monitor.filenos() == []


def test_mounts_that_concern_the_workspace() -> None:
    """Each mount and unmount is reported once."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are not allowed here")
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-W", "error", __file__], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_without_a_list_of_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is reported without /proc."""
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(tmp_path / "nothing"))
    monitor = MountMonitor(str(tmp_path))
    monitor.open()
    assert monitor.filenos() == []
    assert not monitor.changed()
    monitor.close()


if __name__ == "__main__":
    scenario()
