"""The umask: a user's hook has the user's, what comes home obeys it, and the daemon's own files are private."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.system.rig import DEFAULTS, Rig

_022 = ("sh", "-c", 'umask 022; exec "$@"', "sh")
_THERE = {"new": 0o666, "run": 0o777, "known": 0o666, "private": 0o600, "made/deep": 0o664}


@pytest.mark.parametrize("umask", ["022", "002", "000"])
def test_a_hook_runs_with_the_users_umask(rig: Rig, umask: str) -> None:
    """State and spool are private, also where their folder was there before, for all to read."""
    script, made = rig.home / "tell", rig.home / "made"
    script.write_text(f'#!/bin/sh\necho text >"{made}"\n')
    script.chmod(0o755)
    rig.write("a")
    folders = (rig.home / ".local/state/syncd", rig.home / ".cache/syncd")
    for folder in folders:
        folder.mkdir(parents=True)
        folder.chmod(0o755)
    rig.configure({"sync.on_synced": [str(script)]})
    daemon = rig.up(prefix=["sh", "-c", f'umask {umask}; exec "$@"', "sh"])
    rig.until(lambda: made.exists() and made.read_text(), "the hook")
    assert daemon.stop() == 0  # nothing is being written any more
    assert _mode(made) == 0o666 & ~int(umask, 8)
    ours = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    assert {_mode(path) & 0o077 for path in ours} == {0}


def test_what_comes_home_obeys_the_umask(rig: Rig) -> None:
    """Pulled, applied or restored. What it keeps from others is no change of either side, and an undo puts back the
    modes; a saved version has those that were there.
    """
    rig.configure(DEFAULTS)
    rig.write("known", "as sent\n")
    (rig.workspace / "known").chmod(0o664)
    rig.ok("push")
    agent = rig.agent
    for path, mode in _THERE.items():
        agent.write(path, f"theirs: {path}\n", mode)
    agent.chmod("made", 0o777)
    pulled, restored = rig.home / "pulled", rig.home / "restored"
    assert rig.run("pull", str(pulled), prefix=_022).code == 0
    assert {_mode(path) for path in pulled.rglob("*")} == {0o644, 0o755, 0o600}
    assert rig.run("apply", "--yes", prefix=_022).code == 0
    modes = {path: _mode(rig.workspace / path) for path in (*_THERE, "made")}
    assert modes == {"new": 0o644, "run": 0o755, "known": 0o664, "private": 0o600, "made/deep": 0o644, "made": 0o755}
    uploads = rig.count("upload")
    assert rig.ok("diff").out == ""
    rig.ok("push")
    rig.ok("verify")
    assert (rig.count("upload"), rig.status()["agent"]["changed"]) == (uploads, 0)
    assert rig.run("apply", "--undo", prefix=_022).code == 0
    assert {path.name: _mode(path) for path in rig.workspace.iterdir()} == {"known": 0o664}
    # A folder that is not in the plan gets no mode of the one above it.
    rig.workspace.chmod(0o777)
    assert rig.run("apply", "--yes", str(rig.workspace / "made/deep"), prefix=_022).code == 0
    assert (_mode(rig.workspace / "made"), _mode(rig.workspace)) == (0o755, 0o777)
    assert rig.run("apply", "--undo", prefix=_022).code == 0
    for path in _THERE:
        rig.write(path, "ours\n")
    rig.ok("push")
    version = rig.saved()[0]
    assert sorted(version["paths"]) == sorted(_THERE)
    assert rig.run("saved", "restore", version["id"], str(restored), prefix=_022).code == 0
    assert {path: _mode(restored / path) for path in _THERE} == {path: modes[path] for path in _THERE} | {
        "known": 0o644
    }


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)
