"""The fallback watch, for a watchdog version with unknown internals."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.watch.changes import Changes, RescanReason
from syncd.watch.fallback_watch import FallbackWatch
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.interface import watcher
from tests.component.watch_rig import WakeSignal, collect_changes, walk


@pytest.fixture
def wakes() -> Iterator[WakeSignal]:
    wakes = WakeSignal()
    yield wakes
    wakes.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "work/src/deep").mkdir(parents=True)
    (tmp_path / "work/src/file").write_text("x")
    return tmp_path / "work"


@pytest.fixture
def watch(root: Path, wakes: WakeSignal) -> Iterator[FallbackWatch]:
    watch = FallbackWatch(str(root), wakes.wake)
    walk(watch, root)
    yield watch
    watch.close()


def test_a_change_causes_a_full_scan(watch: FallbackWatch, wakes: WakeSignal, root: Path) -> None:
    """It reports a change without its place, and a warning that polling is needed."""
    (root / "src/deep/new").touch()
    assert collect_changes(watch, wakes) == Changes(frozenset(), RescanReason.COARSE)
    assert watch.needs_polling
    assert [warning.key for warning in watch.warnings()] == ["watch:coarse"]


def test_reading_causes_no_events(watch: FallbackWatch, wakes: WakeSignal, root: Path) -> None:
    """Reading is filtered out in the kernel, so the daemon does not wake itself."""
    walk(watch, root)
    (root / "src/file").read_bytes()
    os.listdir(root / "src")
    assert not wakes.wait(0.3)


def test_a_replaced_workspace_is_watched(watch: FallbackWatch, wakes: WakeSignal, root: Path) -> None:
    """The observer stays with the old directory silently, so the scan starts a new one."""
    root.rename(root.with_name("old"))
    assert not watch.alive()
    (root / "src").mkdir(parents=True)
    assert not watch.alive()
    walk(watch, root)
    assert watch.alive()
    watch.take()
    while wakes.wait(0.1):
        watch.take()
    (root / "src/new").touch()
    collect_changes(watch, wakes)


def test_a_missing_workspace_is_a_warning(wakes: WakeSignal, tmp_path: Path) -> None:
    """Nothing is raised, and no thread is left."""
    watch = FallbackWatch(str(tmp_path / "missing"), wakes.wake)
    watch.open()
    assert not watch.alive()
    assert watch.warnings()
    watch.close()


def test_closing_leaves_no_thread_and_no_descriptor(wakes: WakeSignal, root: Path) -> None:
    """Opening and closing repeatedly leaves nothing."""
    FallbackWatch(str(root), wakes.wake).close()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    watch = FallbackWatch(str(root), wakes.wake)
    for _ in range(2):
        watch.open()
        watch.open()
        watch.close()
        watch.close()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_known_watchdog_gets_the_exact_watch(wakes: WakeSignal, root: Path) -> None:
    """With the pinned version the inotify watch is used."""
    assert isinstance(watcher(str(root), wakes.wake), InotifyWatch)


def test_another_watchdog_gets_the_fallback_watch(root: Path) -> None:
    """The daemon starts without the internals that it relies on."""
    script = (
        "import sys\n"
        "from watchdog.observers import inotify_c\n"
        "inotify_c.{missing}\n"
        "from syncd.watch.interface import watcher\n"
        "print(type(watcher(sys.argv[1], lambda: None)).__name__)\n"
    )
    for missing in ("InotifyFD._read_event_buffer", "inotify_rm_watch", "InotifyFD", "InotifyConstants"):
        code = script.replace("inotify_c.{missing}", f"del inotify_c.{missing}")
        done = subprocess.run(
            [sys.executable, "-c", code, root], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == "FallbackWatch\n", missing
