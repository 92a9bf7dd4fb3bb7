"""Directories that limits exclude from the watch are counted, named, and watched once that is possible.

A user namespace has its own limits, so the machine's are not changed: this file is run in one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from syncd.core.clock import SystemClock
from syncd.watch.inotify_watch import InotifyWatch
from tests.component.watch_rig import Rules, opened, walk

REPO = Path(__file__).parents[2]


def tree(directories: int) -> Path:
    """Create a tree of so many directories side by side."""
    root = Path(tempfile.mkdtemp(prefix="syncd-test-")).resolve()
    for number in range(directories):
        (root / f"d{number:03}").mkdir()
    return root


def limit(name: str, value: int) -> None:
    Path("/proc/sys/user", name).write_text(str(value))


def watches_above(root: Path) -> int:
    """Return the number of watches on the directories above a workspace: each but "/" has one."""
    return len(root.parents) - 1


def watches_used_up() -> None:
    root = tree(100)
    most = 19 + watches_above(root)
    limit("max_inotify_watches", most)
    watch = InotifyWatch(str(root), SystemClock())
    for _ in range(3):  # again with the same result, whatever the order of the directories is
        walk(watch, root)
        assert len(watch._failed) == 101 - 19, len(watch._failed)
        assert watch.needs_polling
    (warning,) = watch.warnings()
    assert warning.key == "watch:limit"
    assert "82 of 101 directories" in warning.what, warning
    assert f"user.max_inotify_watches is {most}" in warning.what, warning
    assert "sudo sysctl user.max_inotify_watches=524288" in warning.remedy, warning
    assert "/etc/sysctl.d/" in warning.remedy, warning
    limit("max_inotify_watches", 1000)
    missed = min(watch._failed)
    with opened(root / missed) as fd:
        watch.add_directory(missed, fd, Rules())  # as when a single directory is read
    assert len(watch._failed) == 101 - 20, len(watch._failed)
    walk(watch, root)
    assert watch.warnings() == ()
    assert not watch.needs_polling
    for number in range(100):
        (root / f"d{number:03}" / "file").touch()
    assert "d099" in watch.take().dirty
    watch.close()
    shutil.rmtree(root)


def test_watches_that_are_used_up() -> None:
    """They are counted and named with the remedy, and the next scan uses new ones."""
    if subprocess.run(["unshare", "-U", "-r", "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    command = ["unshare", "-U", "-r", sys.executable, "-W", "error", "-m", __name__]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_too_many_open_files_is_not_too_many_instances(tmp_path: Path) -> None:
    """Both are EMFILE, with different remedies."""
    script = (
        "import os, resource, sys\n"
        "from syncd.core.clock import SystemClock\n"
        "from syncd.watch.inotify_watch import InotifyWatch\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\n"
        "watch, held = InotifyWatch(sys.argv[1], SystemClock()), []\n"
        "try:\n"
        "    while True: held.append(os.dup(2))\n"
        "except OSError: pass\n"
        "watch.open()\n"
        "assert [p.key for p in watch.warnings()] == ['watch:descriptors'], watch.warnings()\n"
        "os.close(held.pop())\n"
        "watch.open()\n"
        "assert watch.warnings() == ()\n"
        "watch.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    watches_used_up()
