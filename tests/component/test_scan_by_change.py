"""A scan of the directories that events named gives the same result as a full scan, whatever changed in between."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from math import inf
from pathlib import Path

import pytest
from msgspec.structs import replace

from syncd.core.clock import SystemClock
from syncd.model.entry import Entry, Kind
from syncd.scan.scanner import Scan, Scanner
from syncd.selection.selection import Selection
from syncd.watch.changes import DirtyDirectories
from syncd.watch.inotify_watch import InotifyWatch
from tests.fuzz.generator import generate
from tests.fuzz.operations import Operations
from tests.fuzz.scenario import Step

ROUNDS = 40


class WatchedWorkspace:
    """A workspace with the real watch, scanned by the changes that the watch reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.watch = InotifyWatch(str(folder), SystemClock())
        self.watch.open()
        self.scanner = Scanner(str(folder), Selection(), self.watch)
        self.dirty = DirtyDirectories(inf)
        self.partial = 0

    def receive(self) -> None:
        """Collect all changes up to now."""
        self.dirty.add(self.watch.take())

    def scan(self) -> Scan:
        changed = self.dirty.take(0.0)
        self.partial += changed is not None
        return self.scanner.scan(changed)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedWorkspace]:
    (tmp_path / "work").mkdir()
    it = WatchedWorkspace(tmp_path / "work")
    yield it
    it.watch.close()


def without_times(scan: Scan) -> dict[str, Entry]:
    """Remove the values that may be outdated until the periodic scan, and do not affect the archive.

    An ignored file changes its directory's time, and a second name that came and went a file's ctime, with no event.
    """
    return {
        path: replace(entry, mtime_s=0)
        if entry.kind is Kind.DIRECTORY
        else replace(entry, stamp=entry.stamp and replace(entry.stamp, ctime_ns=0))
        for path, entry in scan.manifest.items()
    }


def check(watched: WatchedWorkspace) -> None:
    watched.receive()
    seen, wanted = watched.scan(), Scanner(str(watched.folder), Selection()).scan()
    assert list(without_times(seen).items()) == list(without_times(wanted).items())
    assert seen.unread == wanted.unread
    assert {p.key for p in seen.warnings} == {p.key for p in wanted.warnings}
    tree = watched.scanner.tree
    counts = Counter()
    for record in tree._records.values():
        counts.update(record.excluded)
    assert +tree.excluded == counts


def seen(step: Step) -> bool:
    """False for what changes the workspace itself, or a file without an event in a directory that is watched."""
    ignored = step.name == "hard_link" and str(step.args[1]).startswith("node_modules/")
    return not ignored and step.name not in ("replace_workspace", "write_unlinked", "mmap", "munmap")


@pytest.mark.parametrize("seed", range(4))
def test_changed_directories_are_enough(watched: WatchedWorkspace, tmp_path: Path, seed: int) -> None:
    """After each of many random changes both scans give the same entries, and most of them were partial."""
    operations = Operations(watched.folder, tmp_path)
    scenarios = (generate(number) for number in count(seed, 2))
    steps = (step for scenario in scenarios for step in scenario if hasattr(Operations, step.name))
    check(watched)
    for _ in range(ROUNDS):
        for step in islice(filter(seen, steps), 1 + seed):
            with contextlib.suppress(OSError):  # some steps do not fit together
                getattr(operations, step.name)(*step.args)
        check(watched)
    assert watched.partial > ROUNDS // 2


def test_an_edit_by_another_name(watched: WatchedWorkspace) -> None:
    """A file with names in two directories is found changed under both, although only one has an event."""
    for name in ("a", "b"):
        (watched.folder / name).mkdir()
    (watched.folder / "a" / "f").write_text("1")
    os.link(watched.folder / "a" / "f", watched.folder / "b" / "g")
    check(watched)
    (watched.folder / "a" / "f").write_text("longer")
    watched.receive()
    changed = watched.dirty.take(0.0)
    assert changed is not None
    assert {"a", "b"} & changed == {"a"}
    assert watched.scanner.scan({"a"}).manifest["b/g"].size_bytes == 6


def test_rules_that_can_be_read_again(watched: WatchedWorkspace) -> None:
    """A folder whose rules could not be read is listed again once they can, also if its own watch alone tells."""
    rules = watched.folder / "d/e/.gitignore"
    rules.parent.mkdir(parents=True)
    rules.write_bytes(bytes(5 << 20))  # too large
    (rules.parent / "a").write_text("a")
    assert watched.scan().unread == {"d/e"}
    (rules.parent / "b").write_text("b")
    check(watched)
    os.truncate(rules, 0)
    check(watched)
    assert watched.partial == 2


def test_rules_of_a_missing_workspace_count_as_changed(watched: WatchedWorkspace) -> None:
    """Nothing may be uploaded by rules that can no longer be read."""
    (watched.folder / "f").write_text("x")
    watched.scan()
    assert watched.scanner.rules_unchanged([""])
    watched.folder.rename(watched.folder.with_name("aside"))
    assert not watched.scanner.rules_unchanged([""])
