"""The umask: a user's hook has the user's, and the daemon's own files are private."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.system.rig import Rig


@pytest.mark.parametrize("umask", ["022", "002", "000"])
def test_a_hook_runs_with_the_users_umask(rig: Rig, umask: str) -> None:
    """State and spool stay private."""
    script, made = rig.home / "tell", rig.home / "made"
    script.write_text(f'#!/bin/sh\necho text >"{made}"\n')
    script.chmod(0o755)
    rig.write("a")
    rig.configure({"sync.on_synced": [str(script)]})
    daemon = rig.up(prefix=["sh", "-c", f'umask {umask}; exec "$@"', "sh"])
    rig.until(lambda: made.exists() and made.read_text(), "the hook")
    assert daemon.stop() == 0  # nothing is being written any more
    assert _mode(made) == 0o666 & ~int(umask, 8)
    folders = (rig.home / ".local/state/syncd", rig.home / ".cache/syncd")
    ours = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    assert {_mode(path) & 0o077 for path in ours} == {0}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)
