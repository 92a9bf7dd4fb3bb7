"""The fallback watch: where watchdog's internals are unknown, changes still wake the loop."""

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
from tests.component.watch_rig import WakeEvent, receive, walk


@pytest.fixture
def wake_event() -> Iterator[WakeEvent]:
    wake_event = WakeEvent()
    yield wake_event
    wake_event.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "work/src/deep").mkdir(parents=True)
    (tmp_path / "work/src/file").write_text("x")
    return tmp_path / "work"


@pytest.fixture
def watch(root: Path, wake_event: WakeEvent) -> Iterator[FallbackWatch]:
    watch = FallbackWatch(str(root), wake_event.wake)
    walk(watch, root)
    yield watch
    watch.close()


def test_a_change_anywhere_needs_a_rescan(watch: FallbackWatch, wake_event: WakeEvent, root: Path) -> None:
    """It reports that something changed, not where; and it warns that polling is needed, and why."""
    (root / "src/deep/new").touch()
    assert receive(watch, wake_event) == Changes(frozenset(), RescanReason.UNKNOWN_DIRECTORY)
    assert watch.needs_polling
    assert [warning.key for warning in watch.warnings()] == ["watch:coarse"]


def test_reading_causes_no_events(watch: FallbackWatch, wake_event: WakeEvent, root: Path) -> None:
    """Reading is filtered out in the kernel, so the daemon does not wake itself."""
    walk(watch, root)
    (root / "src/file").read_bytes()
    os.listdir(root / "src")
    assert not wake_event.wait(0.3)


def test_a_replaced_workspace_is_watched(watch: FallbackWatch, wake_event: WakeEvent, root: Path) -> None:
    """The observer silently keeps the old directory, so the scan checks, and starts a new observer."""
    root.rename(root.with_name("old"))
    assert not watch.alive()
    (root / "src").mkdir(parents=True)
    assert not watch.alive()
    walk(watch, root)
    assert watch.alive()
    watch.take()
    while wake_event.wait(0.1):
        watch.take()
    (root / "src/new").touch()
    receive(watch, wake_event)


def test_a_missing_workspace_is_a_warning(wake_event: WakeEvent, tmp_path: Path) -> None:
    """A missing workspace is a warning, not an exception, and leaves no thread."""
    watch = FallbackWatch(str(tmp_path / "missing"), wake_event.wake)
    watch.open()
    assert not watch.alive()
    assert watch.warnings()
    watch.close()


def test_closing_leaves_no_thread_and_no_descriptor(wake_event: WakeEvent, root: Path) -> None:
    """It may be opened and closed any number of times."""
    FallbackWatch(str(root), wake_event.wake).close()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    watch = FallbackWatch(str(root), wake_event.wake)
    for _ in range(2):
        watch.open()
        watch.open()
        watch.close()
        watch.close()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_known_watchdog_gets_the_exact_watch(wake_event: WakeEvent, root: Path) -> None:
    """The pinned version gets the exact watch."""
    assert isinstance(watcher(str(root), wake_event.wake), InotifyWatch)


def test_an_unknown_watchdog_gets_the_fallback(root: Path) -> None:
    """If an internal is missing, the daemon still starts."""
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
