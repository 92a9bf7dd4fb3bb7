"""Directories that limits or permissions exclude from the watch are counted, named, and watched once that is possible.

A user namespace has its own limits, so the machine's are not changed: each scenario runs this file in one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.core.clock import SystemClock
from syncd.watch.inotify_watch import InotifyWatch
from tests import descriptors
from tests.component.watch_rig import Rules, opened, walk

REPO = Path(__file__).parents[2]
# Root reads everything unless this capability is dropped.
AS_ANYONE = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    if os.geteuid() == 0
    else ()
)


def tree(directories: int) -> Path:
    """Create a tree of so many directories side by side."""
    root = Path(tempfile.mkdtemp(prefix="syncd-test-")).resolve()
    for number in range(directories):
        (root / f"d{number:03}").mkdir()
    return root


def limit(name: str, value: int) -> None:
    Path("/proc/sys/user", name).write_text(str(value))


def watches_above(root: Path) -> int:
    """Return the number of watches on the directories watches_above a workspace: each but "/" has one."""
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


def instances_used_up() -> None:
    root = tree(3)
    limit("max_inotify_instances", 0)
    before = descriptors.count()
    watch = InotifyWatch(str(root), SystemClock())
    watch.open()
    walk(watch, root)
    assert watch.needs_polling
    (warning,) = watch.warnings()
    assert warning.key == "watch:instances", warning
    assert "user.max_inotify_instances is 0" in warning.what, warning
    assert "sudo sysctl user.max_inotify_instances=512" in warning.remedy, warning
    assert descriptors.count() == before
    limit("max_inotify_instances", 10)
    walk(watch, root)
    assert watch.warnings() == ()
    (root / "d001/file").touch()
    assert "d001" in watch.take().dirty
    watch.close()
    shutil.rmtree(root)


def unreadable() -> None:
    root = tree(0)
    for name in ("closed", "open"):
        (root / name).mkdir()
    (root / "closed").chmod(0o100)
    watch = InotifyWatch(str(root), SystemClock())
    watch.begin()
    for path in ("", "closed", "open"):
        with opened(root / path, os.O_PATH) as fd:
            watch.add_directory(path, fd, Rules())
    watch.finish()
    (warning,) = watch.warnings()
    assert warning.key == "watch:EACCES", warning
    assert "closed" in str(warning), warning
    assert watch.needs_polling
    (root / "closed").chmod(0o700)
    walk(watch, root)
    assert watch.warnings() == ()
    watch.close()
    shutil.rmtree(root)


SCENARIOS: dict[str, Callable[[], None]] = {
    scenario.__name__: scenario for scenario in (watches_used_up, instances_used_up)
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_inotify_limits(scenario: str) -> None:
    """Watches or instances that are used up are counted and named with the remedy, and the next scan uses new ones."""
    if subprocess.run(["unshare", "-U", "-r", "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    command = ["unshare", "-U", "-r", sys.executable, "-W", "error", "-m", __name__, scenario]
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
    (SCENARIOS | {unreadable.__name__: unreadable})[sys.argv[1]]()
