"""The agent's saved versions on disk: whole, private, each content once, and restored as they were."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.core.clock import utc
from syncd.core.errors import Stop
from syncd.model.entry import ABSENT, Kind, SeenEntry
from syncd.sandbox.saved_versions import SavedVersions
from syncd.sandbox.saved_versions_rules import SavedPath, Why
from tests.clock import ScriptedClock

DAY_S = timedelta(days=1).total_seconds()
ODD_NAMES = [os.fsdecode(b"caf\xe9"), "new\nline", "\033[31mred", "-rf", "record", "content.new", "a" * 255, "文書"]


class SavedVersionsRig:
    """A store, its clock, and a folder with fetched copies."""

    def __init__(self, folder: Path) -> None:
        self.clock = ScriptedClock()
        self.folder = folder
        self.state = folder / "state"
        self.saved = self.state / "saved"
        self.copies = folder / "copies"
        self.state.mkdir()
        self.copies.mkdir()
        self.store = self.another()

    def another(self) -> SavedVersions:
        """Return the store of another process."""
        return SavedVersions(str(self.state), self.clock)

    def file(self, content: bytes, mode: int = 0o644, mtime_s: int = 1_700_000_000) -> SeenEntry:
        """Return the entry of a file that was fetched."""
        copy = self.copies / str(len(list(self.copies.iterdir())))
        copy.write_bytes(content)
        return SeenEntry(
            Kind.FILE, mode, mtime_s, len(content), digest=hashlib.sha256(content).digest(), copy=str(copy)
        )

    def save(self, **contents: bytes) -> str:
        """Save files with these contents, a second after the last ones, and return the id."""
        self.clock.go_on(1)
        entries = {path: self.file(content) for path, content in contents.items()}
        return self.store.save(Why.OVERWRITTEN, "box", entries).id

    def content(self, version_id: str, content: bytes) -> Path:
        """Return the file with that content in a version."""
        return self.saved / version_id / hashlib.sha256(content).hexdigest()

    def names(self) -> set[str]:
        """Return the names in the store's folder."""
        return set(os.listdir(self.saved))


@pytest.fixture
def rig(tmp_path: Path) -> SavedVersionsRig:
    """Return an empty store."""
    return SavedVersionsRig(tmp_path)


def digest_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_what_is_saved_is_restored(rig: SavedVersionsRig) -> None:
    """Files, links and folders with any name, their modes and times; the copies are no longer needed."""
    entries = {
        "d": SeenEntry(Kind.DIRECTORY, 0o750, mtime_s=1_600_000_000),
        "d/program": rig.file(b"#!/bin/sh\n", 0o755),
        "d/to/deep": rig.file(b"", 0o600, mtime_s=5),
        "empty folder": SeenEntry(Kind.DIRECTORY, 0o500),
        "ln": SeenEntry(Kind.SYMLINK, target=os.fsdecode(b"d/\xff")),
        **{name: rig.file(os.fsencode(name)) for name in ODD_NAMES},
    }
    version = rig.store.save(Why.CONFLICT, "box-1", entries)
    shutil.rmtree(rig.copies)
    assert rig.another().all() == [version]
    assert (version.why, version.sandbox_id, version.at) == (Why.CONFLICT, "box-1", utc(rig.clock.wall))
    assert version.at.tzinfo is UTC
    assert version.paths["d/program"] == SavedPath(Kind.FILE, 0o755, 1_700_000_000, 10, digest_of(b"#!/bin/sh\n"))
    assert version.size_bytes == sum(entry.size_bytes for entry in entries.values())
    top = rig.folder / "new/dest"
    extracted = rig.another().restore(version.id, str(top))
    assert (extracted.files, extracted.left_out) == (3 + len(ODD_NAMES), [])
    assert {name: (top / name).read_bytes() for name in ODD_NAMES} == {name: os.fsencode(name) for name in ODD_NAMES}
    assert (top / "d/program").stat().st_mode & 0o7777 == 0o755
    assert (top / "d/to/deep").stat().st_mtime == 5
    assert ((top / "d").stat().st_mtime, (top / "d").stat().st_mode & 0o777) == (1_600_000_000, 0o750)
    assert list((top / "empty folder").iterdir()) == []
    assert os.readlink(os.fsencode(top / "ln")) == b"d/\xff"
    assert rig.store.find(version.id) == version


def test_nobody_else_can_read_it(rig: SavedVersionsRig) -> None:
    """Folders are 0700 and files 0600, whatever the umask and the modes in the sandbox; no set-id bit is kept."""
    before = os.umask(0)
    try:
        version = rig.store.save(Why.REMOVED, "box", {"a": rig.file(b"x", 0o6777)})
    finally:
        os.umask(before)
    paths = [rig.saved, *rig.saved.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if not path.is_dir()} == {0o600}
    assert version.paths["a"].mode == 0o777


def test_a_content_is_on_disk_once(rig: SavedVersionsRig) -> None:
    """Within a version and across versions; it stays as long as one version has it."""
    first = rig.save(a=b"same", b=b"same", c=b"other")
    second = rig.save(d=b"same")
    assert len(os.listdir(rig.saved / first)) == 3
    assert rig.content(first, b"same").stat().st_ino == rig.content(second, b"same").stat().st_ino
    assert rig.store.drop(first)
    rig.store.restore(second, str(rig.folder / "dest"))
    assert (rig.folder / "dest/d").read_bytes() == b"same"


def test_a_damaged_content_is_not_shared(rig: SavedVersionsRig) -> None:
    """A later version gets a copy of its own; the damage is said at restore, and the rest is restored."""
    first = rig.save(a=b"same", b=b"whole")
    rig.content(first, b"same").write_bytes(b"SAME")
    second = rig.save(a=b"same")
    assert rig.content(second, b"same").read_bytes() == b"same"
    extracted = rig.store.restore(first, str(rig.folder / "dest"))
    assert extracted.left_out == ["a: its saved content was damaged on this disk"]
    assert os.listdir(rig.folder / "dest") == ["b"]


def test_without_hard_links(rig: SavedVersionsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has none, a content is copied."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    first = rig.save(a=b"same")
    monkeypatch.setattr(os, "link", refuse)
    second = rig.save(a=b"same")
    assert rig.content(first, b"same").stat().st_ino != rig.content(second, b"same").stat().st_ino
    assert rig.content(second, b"same").read_bytes() == b"same"


def test_holder(rig: SavedVersionsRig) -> None:
    """It has that content at that path, undamaged, since less than a day."""
    version = rig.save(a=b"1", b=b"2")
    rig.store.save(Why.REMOVED, "box", {"d": SeenEntry(Kind.DIRECTORY)})
    assert rig.store.holder_of("a", digest_of(b"1")) == version
    assert not rig.store.holder_of("a", digest_of(b"2"))
    assert not rig.store.holder_of("c", digest_of(b"1"))
    assert not rig.store.holder_of("d", b"")
    rig.content(version, b"1").write_bytes(b"!")
    assert not rig.store.holder_of("a", digest_of(b"1"))
    assert rig.store.damaged(rig.store.all()[1]) == ["a"]
    rig.clock.go_on(DAY_S)
    rig.store.expire(utc(rig.clock.wall))
    assert not rig.store.holder_of("b", digest_of(b"2"))


def test_only_what_has_a_content_is_saved(rig: SavedVersionsRig) -> None:
    """Files without a copy, sockets and missing paths are not in the version; with nothing else there is none."""
    nothing = {"gone": ABSENT, "big": SeenEntry(Kind.FILE, size_bytes=9), "s": SeenEntry(Kind.OTHER)}
    version = rig.store.save(Why.REMOVED, "box", {"a": rig.file(b"1"), **nothing})
    assert list(version.paths) == ["a"]
    with pytest.raises(ValueError, match="no entry"):
        rig.store.save(Why.REMOVED, "box", nothing)
    assert rig.names() == {version.id}


def test_a_wrong_copy_is_no_version(rig: SavedVersionsRig) -> None:
    """A copy that is not what was looked at, is missing, or is a link: an error, and nothing stays."""
    good, other = rig.file(b"1"), rig.file(b"2")
    link = rig.copies / "link"
    link.symlink_to(good.copy)
    for copy in (other.copy, str(rig.copies / "none"), str(link), str(rig.copies)):
        wrong = SeenEntry(Kind.FILE, 0o644, 0, 1, digest=digest_of(b"3"), copy=copy)
        with pytest.raises(OSError, match=r".") as failure:
            rig.store.save(Why.REMOVED, "box", {"a": good, "b": other, "c": wrong, "d": good})
        assert failure.value.filename == copy
        assert rig.names() == set()
    assert rig.store.all() == []


def test_hostile_values_are_saved(rig: SavedVersionsRig) -> None:
    """Times that no disk can store, paths that lead outside: saved, and what can be restored is."""
    entries = {
        "late": rig.file(b"1", mtime_s=1 << 80),
        "early": rig.file(b"2", mtime_s=-(1 << 80)),
        "../out": rig.file(b"3"),
        "/abs": rig.file(b"4"),
        "ln": SeenEntry(Kind.SYMLINK, target="/etc"),
        "ln/passwd": rig.file(b"5"),
        "up": SeenEntry(Kind.SYMLINK, target="../x"),
    }
    version = rig.store.save(Why.REMOVED, "box", entries)
    extracted = rig.store.restore(version.id, str(rig.folder / "top/dest"))
    assert sorted(line.partition(":")[0] for line in extracted.left_out) == ["../out", "/abs", "ln", "up"]
    assert os.listdir(rig.folder / "top") == ["dest"]
    assert (rig.folder / "top/dest/ln/passwd").read_bytes() == b"5"
    assert (rig.folder / "top/dest/late").read_bytes() == b"1"
    assert (rig.folder / "top/dest/early").read_bytes() == b"2"


def test_a_restore_that_is_stopped_leaves_nothing(rig: SavedVersionsRig) -> None:
    """The draft is removed; the version stays."""
    version = rig.save(a=b"1")

    def stop() -> None:
        raise Stop

    before = sorted(rig.folder.iterdir())
    with pytest.raises(Stop):
        rig.store.restore(version, str(rig.folder / "dest"), stop)
    assert sorted(rig.folder.iterdir()) == before
    assert rig.store.count == 1


def test_a_link_in_place_of_a_content_is_not_followed(rig: SavedVersionsRig) -> None:
    """It is left out."""
    version = rig.save(a=b"1")
    rig.content(version, b"1").unlink()
    rig.content(version, b"1").symlink_to("/etc/passwd")
    assert [line[:3] for line in rig.store.restore(version, str(rig.folder / "dest")).left_out] == ["a: "]
    assert os.listdir(rig.folder / "dest") == []


@pytest.mark.parametrize("content", [b"", b"garbage", b"syncd-state 1 " + b"0" * 64 + b"\n\x80"])
def test_a_damaged_record(rig: SavedVersionsRig, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    """It is set aside and named once; the others are listed, its contents stay until they expire or are dropped."""
    damaged, whole = rig.save(a=b"1"), rig.save(a=b"2")
    (rig.saved / damaged / "record").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        store = rig.another()
        assert [version.id for version in store.all()] == [whole]
        assert store.find(damaged) is None
        assert store.count == 1
    assert len(caplog.records) == 1
    assert "'record' was damaged" in caplog.text
    rig.save(a=b"3")
    assert rig.content(damaged, b"1").read_bytes() == b"1"
    assert store.expire(utc(rig.clock.wall)) == []
    assert damaged in rig.names()
    assert store.drop(damaged)
    assert damaged not in rig.names()


def test_old_versions_expire(rig: SavedVersionsRig) -> None:
    """After thirty days, with damaged ones that are older; their place on the disk is free. Spared ones stay."""
    damaged, old, spared = rig.save(a=b"0"), rig.save(a=b"1"), rig.save(a=b"2")
    (rig.saved / damaged / "record").write_bytes(b"")
    for day in range(30):
        assert rig.another().expire(utc(rig.clock.wall)) == []
        assert [version.days for version in rig.another().all()] == [day, day]
        rig.clock.go_on(DAY_S)
    newest = rig.save(a=b"3")
    assert [version.id for version in rig.store.expire(utc(rig.clock.wall), [spared])] == [old]
    assert rig.names() == {spared, newest}
    assert [version.id for version in rig.store.expire(utc(rig.clock.wall))] == [spared]


def test_a_clock_that_jumps_drops_nothing(rig: SavedVersionsRig) -> None:
    """Weeks ahead or back are a day at most; nobody changes the contents."""
    version = rig.save(a=b"1")
    for jump_s in (60 * DAY_S, 400 * DAY_S, -800 * DAY_S, 40 * DAY_S):
        rig.clock.go_on(jump_s)
        for _ in range(3):
            assert rig.another().expire(utc(rig.clock.wall)) == []
    (found,) = rig.another().all()
    assert (found.id, found.days) == (version, 3)
    assert rig.store.damaged(found) == []


def test_many_at_once(rig: SavedVersionsRig) -> None:
    """Processes that save, list and drop at the same time neither lose nor break each other's versions."""
    entries = {"a": rig.file(b"same"), "b": rig.file(b"other")}

    def save_and_drop(_: int) -> str:
        store = rig.another()
        kept, dropped = (store.save(Why.CONFLICT, "box", entries).id for _ in range(2))
        assert {kept, dropped} <= {version.id for version in store.all()}
        assert store.drop(dropped)
        return kept

    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(save_and_drop, range(16)))
    assert rig.names() == set(kept)
    assert len(kept) == len(set(kept)) == rig.store.count
    for version_id in kept:
        assert sorted(os.listdir(rig.saved / version_id)) == sorted(
            ["record", digest_of(b"same").hex(), digest_of(b"other").hex()]
        )


def test_what_was_made_by_half_is_removed_by_the_next_save(rig: SavedVersionsRig) -> None:
    """But not what another process makes at this moment, nor what is not the store's."""
    dead, living, foreign = (rig.saved / name for name in ("20261124-000000-00", "20261124-000000-01", "notes"))
    for folder in (dead, living, foreign):
        folder.mkdir(parents=True)
        (folder / "content.new").write_text("half")
    assert (rig.store.all(), rig.store.count) == ([], 0)
    descriptor = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        saved = rig.save(a=b"1")
        assert rig.names() == {saved, living.name, foreign.name}
    finally:
        os.close(descriptor)
    again = rig.save(a=b"2")
    assert rig.names() == {saved, again, foreign.name}


def test_a_folder_that_was_removed_meanwhile(rig: SavedVersionsRig) -> None:
    """Someone clears the store between two saves, or puts something else in its place."""
    rig.save(a=b"1")
    shutil.rmtree(rig.saved)
    assert rig.store.all() == []
    version = rig.save(a=b"1")
    assert [found.id for found in rig.store.all()] == [version]
    assert rig.store.expire(datetime(2026, 1, 1, tzinfo=UTC)) == []
    shutil.rmtree(rig.saved)
    rig.saved.write_text("a file")
    with pytest.raises(NotADirectoryError):
        rig.save(a=b"1")
