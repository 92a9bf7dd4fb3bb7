"""`python -m tests.bench peers` on a machine that has none of the peers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bench.stopwatch import REPO

# For a run that takes some seconds on an idle machine.
_LIMIT_S = 100.0


def test_without_any_peer_syncd_is_measured_and_the_others_are_named(tmp_path: Path) -> None:
    """What is not installed is skipped by name, the run succeeds, and nothing is left in the temporary folder."""
    folders = {name: tmp_path / name for name in ("commands", "scratch")}
    for folder in folders.values():
        folder.mkdir()
    sizes = ("--peer-files", "20", "--peer-edits", "1", "--peer-quiet", "0.05", "--peer-limit", "80")
    done = subprocess.run(
        (sys.executable, "-m", "tests.bench", "peers", *sizes),
        check=False,
        cwd=REPO,
        env={**os.environ, "PATH": str(folders["commands"]), "TMPDIR": str(folders["scratch"])},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    skipped = [line.removesuffix(" not installed, skipped") for line in lines if line.endswith("skipped")]
    assert skipped == [
        "lsyncd: lsyncd and rsync",
        "Syncthing:",
        "Unison: unison and unison-fsmonitor",
        "rsync -a: rsync",
        "restic backup: restic",
        "git push: git",
        "tar | curl: inotifywait and tar and curl",
    ]
    measured = [line for line in lines if line.startswith("syncd, ")]
    assert [line.split("  ")[0] for line in measured] == ["syncd, auto", "syncd, no look", "syncd, full"], done.stdout
    assert "failed" not in done.stdout
    assert list(folders["scratch"].iterdir()) == []
