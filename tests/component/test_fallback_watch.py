"""The watch of last resort: where watchdog's internals are not the known ones, changes still ring."""

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
from tests.component.watch_rig import Bell, hear, walk


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "work/src/deep").mkdir(parents=True)
    (tmp_path / "work/src/file").write_text("x")
    return tmp_path / "work"


@pytest.fixture
def watch(root: Path, bell: Bell) -> Iterator[FallbackWatch]:
    watch = FallbackWatch(str(root), bell.wake)
    walk(watch, root)
    yield watch
    watch.close()


def test_a_change_anywhere_is_a_doubt(watch: FallbackWatch, bell: Bell, root: Path) -> None:
    """It says that something happened, not where; and that polling is needed besides, and why."""
    (root / "src/deep/new").touch()
    assert hear(watch, bell) == Changes(frozenset(), RescanReason.COARSE)
    assert watch.needs_polling
    assert [warning.key for warning in watch.warnings()] == ["watch:coarse"]


def test_reading_everything_starts_nothing(watch: FallbackWatch, bell: Bell, root: Path) -> None:
    """Reading is filtered out in the kernel, else the daemon would wake itself for ever."""
    walk(watch, root)
    (root / "src/file").read_bytes()
    os.listdir(root / "src")
    assert not bell.wait(0.3)


def test_a_workspace_that_was_replaced_is_watched_anew(watch: FallbackWatch, bell: Bell, root: Path) -> None:
    """The observer stays with the old directory in silence, so the scan looks and builds a new one."""
    root.rename(root.with_name("old"))
    assert not watch.alive()
    (root / "src").mkdir(parents=True)
    assert not watch.alive()
    walk(watch, root)
    assert watch.alive()
    watch.take()
    while bell.wait(0.1):
        watch.take()
    (root / "src/new").touch()
    hear(watch, bell)


def test_a_missing_workspace_is_a_problem(bell: Bell, tmp_path: Path) -> None:
    """Nothing to watch is told, not raised, and leaves no thread."""
    watch = FallbackWatch(str(tmp_path / "missing"), bell.wake)
    watch.open()
    assert not watch.alive()
    assert watch.warnings()
    watch.close()


def test_closing_leaves_no_thread_and_no_descriptor(bell: Bell, root: Path) -> None:
    """However often it is opened and closed."""
    FallbackWatch(str(root), bell.wake).close()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    watch = FallbackWatch(str(root), bell.wake)
    for _ in range(2):
        watch.open()
        watch.open()
        watch.close()
        watch.close()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_known_watchdog_gets_the_exact_watch(bell: Bell, root: Path) -> None:
    """With the pinned version nothing coarse is used."""
    assert isinstance(watcher(str(root), bell.wake), InotifyWatch)


def test_another_watchdog_gets_the_coarse_one(root: Path) -> None:
    """Where an internal that is relied on is missing, the daemon still starts."""
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
