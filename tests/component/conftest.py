"""The fixtures of the inotify watch's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.watch.inotify_watch import InotifyWatch
from tests.component.watch_rig import (
    WakeEvent,
    walk,
)


@pytest.fixture
def wake_event() -> Iterator[WakeEvent]:
    wake_event = WakeEvent()
    yield wake_event
    wake_event.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "work"
    (root / "src/deep").mkdir(parents=True)
    (root / "zz").mkdir()
    (root / "src/a.py").write_bytes(b"a" * 8192)
    (root / "src/b.py").write_text("b")
    (root / "src/empty").mkdir()
    return root


@pytest.fixture
def watch(root: Path, wake_event: WakeEvent) -> Iterator[InotifyWatch]:
    watch = InotifyWatch(str(root), wake_event.wake)
    watch.open()
    walk(watch, root)
    yield watch
    watch.close()
