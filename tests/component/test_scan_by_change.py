"""A scan of the directories that events named equals a full scan, whatever was changed before."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from syncd.core import file_identity
from syncd.daemon.wakeup import Wakeup
from syncd.scan.manifest import Kind, Manifest
from syncd.scan.scanner import Scan, Scanner
from syncd.selection.selection import Selection, SelectionSettings
from syncd.watch.changes import Changes, RescanReason
from syncd.watch.dirty_directories import DirtyDirectories
from syncd.watch.inotify_watch import InotifyWatch
from tests.component.git_folder import make_repository
from tests.inodes import make_anew, reusing

ROUNDS = 25
# Two events of one move may be this far apart.
QUIET_S = 0.05
DEADLINE_S = 10.0


class WatchedWorkspace:
    """A workspace with a real watch, scanned by its events."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wakeup = Wakeup()
        self.watch = InotifyWatch(str(folder), self.wakeup.ring)
        self.watch.open()
        self.scanner = Scanner(str(folder), Selection(SelectionSettings()), self.watch)
        self.dirty = DirtyDirectories()
        self.partial = 0

    def close(self) -> None:
        self.watch.close()
        self.wakeup.close()

    def hear(self) -> None:
        """Read events until no more come."""
        while select.select([self.wakeup.fileno()], [], [], QUIET_S)[0]:
            self.wakeup.drain()
            self.dirty.heard(self.watch.take())

    def scan(self) -> Scan:
        changed = self.dirty.taken()
        self.partial += changed is not None
        return self.scanner.scan(changed)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedWorkspace]:
    (tmp_path / "work").mkdir()
    it = WatchedWorkspace(tmp_path / "work")
    yield it
    it.close()


def afresh(folder: Path) -> Scan:
    """Return what a scan without any records finds."""
    return Scanner(str(folder), Selection(SelectionSettings())).scan()


def timeless(scan: Scan) -> Manifest:
    """Remove what may be outdated until the periodic scan and does not matter for what is sent.

    An ignored file changes its directory's time, and a hard link that came and went a file's ctime, without an event.
    """
    return {
        path: replace(entry, mtime_s=0)
        if entry.kind is Kind.DIRECTORY
        else replace(entry, stamp=entry.stamp and replace(entry.stamp, ctime_ns=0))
        for path, entry in scan.manifest.items()
    }


def check(watched: WatchedWorkspace) -> None:
    watched.hear()
    seen, wanted = watched.scan(), afresh(watched.folder)
    assert list(timeless(seen).items()) == list(timeless(wanted).items())
    assert seen.unread == wanted.unread
    assert {p.key for p in seen.warnings} == {p.key for p in wanted.warnings}
    tree = watched.scanner._tree
    counts = Counter()
    for listing in tree._listings.values():
        counts.update(listing.left_out or {})
    assert {rule: number for rule, number in tree.left_out.items() if number} == counts


@pytest.fixture
def reborn(tmp_path: Path) -> Iterator[WatchedWorkspace]:
    """A workspace with a directory `build`, on a disk that reuses inode numbers."""
    with reusing(tmp_path) as place:
        (place / "work/build").mkdir(parents=True)
        it = WatchedWorkspace(place / "work")
        yield it
        it.close()


def known(reborn: WatchedWorkspace) -> None:
    """Scan and watch the directory `build`; its contents are ignored and not reported."""
    (reborn.folder / ".gitignore").write_text("*.o\n")
    (reborn.folder / "build/old.o").touch()
    check(reborn)


def test_a_recreated_directory_with_the_same_inode_number(reborn: WatchedWorkspace) -> None:
    """The next scan finds its contents, and later changes in it are reported."""
    build = reborn.folder / "build"
    make_anew(build, lambda: known(reborn))
    (build / "sub").mkdir()
    (build / "sub" / "x").touch()
    check(reborn)
    (build / "sub" / "y").touch()
    assert select.select([reborn.wakeup.fileno()], [], [], DEADLINE_S)[0]
    check(reborn)
    assert reborn.partial


def test_a_recreated_directory_has_another_identity(reborn: WatchedWorkspace) -> None:
    """Its parent's listing shows it without an event of the directory itself."""
    make_anew(reborn.folder / "build", lambda: known(reborn))
    (reborn.folder / "build/x").touch()
    assert set(reborn.scanner.scan({""}).manifest) == {".gitignore", "build", "build/x"}


def test_a_removed_directory_is_named(reborn: WatchedWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without other identities, the event of its removal names it."""
    for name in ("_name_to_handle_at", "_statx"):
        monkeypatch.setattr(file_identity, name, None)
    make_anew(reborn.folder / "build", lambda: known(reborn))
    (reborn.folder / "build/x").touch()
    check(reborn)
    (reborn.folder / "build/y").touch()
    assert select.select([reborn.wakeup.fileno()], [], [], DEADLINE_S)[0]
    check(reborn)


class RandomChanges:
    """Makes changes in a tree, chosen by a seeded random."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rnd = random.Random(seed)
        self.count = 0

    def folders(self) -> list[Path]:
        return [Path(base) for base, _, _ in os.walk(self.folder)]

    def files(self) -> list[Path]:
        return [Path(base) / name for base, _, names in os.walk(self.folder) for name in names]

    def name(self) -> str:
        self.count += 1
        return self.rnd.choice(["f", "d", "x.log", "build", "é", "-", "new\nline"]) + str(self.rnd.randrange(2))

    def step(self) -> None:
        deeds: list[Callable[[], None]] = [
            self.write, self.write, self.write, self.make, self.make_deep, self.remove_file, self.remove_folder,
            self.move, self.move, self.swap_in, self.ignore, self.link, self.chmod, self.replace_kind,
            self.hard_link, self.edit_in_place, self.edit_in_place, self.make_anew, self.make_anew,
        ]  # fmt: skip
        for _ in range(self.rnd.randrange(1, 5)):
            self.rnd.choice(deeds)()

    def write(self) -> None:
        target = self.rnd.choice(self.folders()) / self.name()
        if not target.is_dir() and not target.is_symlink():
            target.write_text(str(self.count) * self.rnd.randrange(1, 50))

    def make(self) -> None:
        (self.rnd.choice(self.folders()) / self.name()).mkdir(exist_ok=True) if self.rnd.random() < 0.9 else None

    def make_deep(self) -> None:
        deep = self.rnd.choice(self.folders()) / f"deep{self.rnd.randrange(3)}" / "a" / "b"
        deep.mkdir(parents=True, exist_ok=True)
        (deep / "file").write_text("deep")

    def remove_file(self) -> None:
        files = self.files()
        if files:
            self.rnd.choice(files).unlink()

    def remove_folder(self) -> None:
        inner = self.folders()[1:]
        if inner and self.rnd.random() < 0.5:
            shutil.rmtree(self.rnd.choice(inner))

    def make_anew(self) -> None:
        """Remove and create a directory, as a clean build does; it may get the same inode number."""
        inner = self.folders()[1:]
        if inner:
            build = self.rnd.choice(inner)
            shutil.rmtree(build)
            (build / "deep0").mkdir(parents=True)
            (build / "deep0" / "x").write_text(str(self.count))

    def move(self) -> None:
        inner = self.folders()[1:] + self.files()
        if inner:
            source, folder = self.rnd.choice(inner), self.rnd.choice(self.folders())
            target = folder / self.name()
            if source not in (folder, *folder.parents) and not os.path.lexists(target):
                source.rename(target)

    def swap_in(self) -> None:
        """Rename a directory to another one's name."""
        inner = self.folders()[1:]
        if inner:
            gone = self.rnd.choice(inner)
            new = self.folder.parent / f"outside{self.count}"
            (new / "sub").mkdir(parents=True, exist_ok=True)
            (new / "sub" / "swapped").write_text("in")
            shutil.rmtree(gone)
            new.rename(gone)

    def ignore(self) -> None:
        rules = self.rnd.choice([".gitignore", ".syncdignore"])
        text = "".join(self.rnd.sample(["*.log\n", "build*\n", "!x.log1\n", "/d1\n", "deep0/\n", "f*\n!f2\n"], 2))
        file = self.rnd.choice(self.folders()) / rules
        if self.rnd.random() < 0.3:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text)

    def link(self) -> None:
        place = self.rnd.choice(self.folders()) / f"link{self.rnd.randrange(3)}"
        if not os.path.lexists(place):
            place.symlink_to(
                self.rnd.choice(
                    ["f1", "..", "../..", "/etc/hosts", "nowhere", ".", "link0", "link1/../f1", "link2/../../f1"]
                )
            )

    def hard_link(self) -> None:
        """Give a file a second name; an edit by either is reported in one directory only."""
        files = [file for file in self.files() if not file.is_symlink()]
        place = self.rnd.choice(self.folders()) / f"second{self.rnd.randrange(3)}"
        if files and not os.path.lexists(place):
            os.link(self.rnd.choice(files), place)

    def edit_in_place(self) -> None:
        files = [file for file in self.files() if not file.is_symlink()]
        if files:
            with self.rnd.choice(files).open("a") as file:
                file.write("more")

    def chmod(self) -> None:
        self.rnd.choice(self.files() + self.folders()).chmod(self.rnd.choice([0o755, 0o700, 0o711 | 0o400])) if (
            self.files()
        ) else None

    def replace_kind(self) -> None:
        files = self.files()
        if files:
            victim = self.rnd.choice(files)
            victim.unlink()
            victim.mkdir()
            (victim / "inner").write_text("was a file")


@pytest.mark.parametrize("seed", range(2))
def test_changed_directories_are_enough(watched: WatchedWorkspace, seed: int) -> None:
    """After each random change both scans agree, and most of them were partial."""
    chaos = RandomChanges(watched.folder, seed)
    check(watched)
    for _ in range(ROUNDS):
        with contextlib.suppress(OSError):  # some steps do not fit together
            chaos.step()
        check(watched)
    assert watched.partial > ROUNDS // 2


def test_an_edit_by_another_name(watched: WatchedWorkspace) -> None:
    """A file with hard links in two directories changes in both, though only one is reported."""
    for name in ("a", "b"):
        (watched.folder / name).mkdir()
    (watched.folder / "a" / "f").write_text("1")
    os.link(watched.folder / "a" / "f", watched.folder / "b" / "g")
    check(watched)
    (watched.folder / "a" / "f").write_text("longer")
    watched.hear()
    changed = watched.dirty.taken()
    assert changed is not None
    assert {"a", "b"} & changed == {"a"}
    assert watched.scanner.scan({"a"}).manifest["b/g"].size_bytes == 6


def test_only_named_directories_are_scanned(watched: WatchedWorkspace) -> None:
    """Other directories are trusted, which makes it fast, and needs the periodic scan."""
    (watched.folder / "a").mkdir()
    (watched.folder / "b").mkdir()
    watched.hear()
    watched.scan()
    watched.hear()
    watched.dirty.taken()
    (watched.folder / "a" / "f").write_text("1")
    (watched.folder / "b" / "f").write_text("1")
    assert set(watched.scanner.scan({"a"}).manifest) == {"a", "a/f", "b"}
    assert set(watched.scanner.scan().manifest) == {"a", "a/f", "b", "b/f"}


def test_learned_contents_last_while_the_stamp_does(watched: WatchedWorkspace) -> None:
    """An entry with known content is kept until `stat` differs."""
    for name in ("changed", "listed", "trusted"):
        (watched.folder / name).mkdir()
        (watched.folder / name / "f").write_text(name)
    scan = watched.scan()
    learned = {path: replace(entry, digest=b"x") for path, entry in scan.manifest.items() if path.endswith("f")}
    watched.scanner.learn({**learned, "gone/f": learned["listed/f"]})
    (watched.folder / "changed" / "f").write_text("chaNged")
    for changed in ({"changed", "listed"}, None):
        again = watched.scanner.scan(changed).manifest
        assert again["changed/f"].digest == b""
        assert again["listed/f"] is learned["listed/f"]
        assert again["trusted/f"] is learned["trusted/f"]
        assert "gone/f" not in again


def test_an_entry_without_a_stamp_is_scanned_again(watched: WatchedWorkspace) -> None:
    """It is not trusted by the next scan of its directory, whatever its digest."""
    (watched.folder / "f").write_text("x")
    entry = watched.scan().manifest["f"]
    watched.scanner.learn({"f": replace(entry, digest=b"x", stamp=None)})
    assert watched.scanner.scan(set()).manifest["f"].digest == b"x"
    assert watched.scanner.scan({""}).manifest["f"] == entry
    watched.scanner.learn({"f": replace(entry, digest=b"x", stamp=None)})
    assert watched.scanner.scan().manifest["f"] == entry


def test_changed_rules_are_applied_again(watched: WatchedWorkspace) -> None:
    """A full scan, too, decides again about what an older rule included."""
    (watched.folder / "d").mkdir()
    for name in ("f.log", "d/f.log", "d/g"):
        (watched.folder / name).write_text("x")
    found = watched.scan().manifest
    watched.scanner.learn({path: replace(entry, digest=b"x") for path, entry in found.items() if entry.stamp})
    (watched.folder / ".gitignore").write_text("*.log")
    assert list(watched.scanner.scan().manifest) == [".gitignore", "d", "d/g"]
    (watched.folder / ".gitignore").unlink()
    (watched.folder / "d" / ".gitignore").write_text("g")
    assert list(watched.scanner.scan().manifest) == ["d", "d/.gitignore", "d/f.log", "f.log"]
    (watched.folder / "d" / "f.log").unlink()
    (watched.folder / "d" / "f.log").mkdir()
    (watched.folder / "d" / ".gitignore").write_text("*.log/")
    assert list(watched.scanner.scan().manifest) == ["d", "d/.gitignore", "d/g", "f.log"]


def test_changed_exclude_files_are_read_again(watched: WatchedWorkspace) -> None:
    """Git's own exclude file causes no event: a full scan reads it."""
    make_repository(watched.folder)
    (watched.folder / "f").write_text("x")
    watched.scanner.learn({"f": replace(watched.scan().manifest["f"], digest=b"x")})
    (watched.folder / ".git" / "info" / "exclude").write_text("f\n")
    assert list(watched.scanner.scan().manifest) == []


def test_rules_of_a_missing_workspace_are_dropped(watched: WatchedWorkspace) -> None:
    """Nothing of it is sent by rules that cannot be read any more."""
    (watched.folder / "f").write_text("x")
    watched.scan()
    assert watched.scanner.rules_unchanged(["f"])
    watched.folder.rename(watched.folder.with_name("aside"))
    assert not watched.scanner.rules_unchanged(["f"])


def test_files_read_again_with_an_unchanged_stamp() -> None:
    """Files that events named are read again; after lost events, all whose stamps were young when read."""
    dirty = DirtyDirectories()
    assert dirty.taken_files() == frozenset()
    dirty.heard(Changes(frozenset({"a"}), written=frozenset({"a/f"})))
    dirty.heard(Changes(unlinked=frozenset({"b"})))
    dirty.anywhere()  # an own failure: the changes stay known
    assert dirty.taken_files() == {"a/f"}
    assert dirty.taken_files() == frozenset()
    dirty.taken()
    dirty.heard(Changes(frozenset({"a"}), written=None))
    assert dirty.taken() == {"a"}
    assert dirty.taken_files() is None
    for missed in (Changes(rescan_reason=RescanReason.OVERFLOW), Changes(written=frozenset(map(str, range(5000))))):
        dirty.heard(missed)
        dirty.heard(Changes(written=frozenset({"a/f"})))
        assert dirty.taken_files() is None
    assert dirty.taken_files() == frozenset()


def test_a_write_to_an_unlinked_file_is_scanned() -> None:
    """The next scan reads its directory like others."""
    dirty = DirtyDirectories()
    dirty.taken()
    dirty.heard(Changes(unlinked=frozenset({"b"})))
    assert dirty.taken() == {"b"}


def test_when_everything_is_scanned() -> None:
    """A full scan is done at the start, after lost events, and for too many directories."""
    dirty = DirtyDirectories()
    assert dirty.taken() is None
    assert dirty.taken() == frozenset()
    dirty.heard(Changes(frozenset({"a"})))
    dirty.heard(Changes(frozenset({"b"})))
    assert dirty.taken() == {"a", "b"}
    dirty.heard(Changes(frozenset(map(str, range(5000)))))
    assert dirty.taken() is None
    dirty.anywhere()
    dirty.heard(Changes(frozenset({"a"})))
    assert dirty.taken() is None


@pytest.mark.parametrize("hidden", ["build/other", "../outside"])
def test_a_write_by_an_unwatched_hard_link(watched: WatchedWorkspace, hidden: str) -> None:
    """A file with an excluded or outside hard link is watched itself; reading it causes no event."""
    (watched.folder / ".gitignore").write_text("build/\n")
    (watched.folder / "a").mkdir()
    (watched.folder / "a/f").write_text("x")
    other = watched.folder / hidden
    other.parent.mkdir(exist_ok=True)
    os.link(watched.folder / "a/f", other)
    watched.scan()
    watched.hear()
    watched.scan()
    other.read_text()
    assert not select.select([watched.wakeup.fileno()], [], [], QUIET_S)[0]
    other.write_text("longer")
    assert select.select([watched.wakeup.fileno()], [], [], DEADLINE_S)[0]
    watched.hear()
    assert watched.scan().manifest["a/f"].size_bytes == 6
    assert watched.partial
