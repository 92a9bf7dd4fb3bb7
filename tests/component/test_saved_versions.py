"""The agent's saved versions on disk: whole, private, each content once, and restored as they were."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.core.choices import SAVED_BYTES
from syncd.core.clock import utc
from syncd.core.settings import MAIN
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sandbox.saved_versions import SavedVersion, SavedVersions, VersionSaver, Why, aged, expired
from syncd.store.blobs import Blobs
from syncd.store.state_db import NAME, StateDb
from tests.clock import ScriptedClock
from tests.component.sample_records import TARGET, arrived
from tests.component.test_state_db import tree
from tests.looks import file_of
from tests.recorded import change, full_disk

DAY_S = timedelta(days=1).total_seconds()
ODD_NAMES = [os.fsdecode(b"caf\xe9"), "new\nline", "\033[31mred", "-rf", "a" * 255, "文書"]


class SavedVersionsRig:
    """A store, and its clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = ScriptedClock()
        self.folder = folder
        self.state = folder / "state"
        self.blobs = self.state / "blobs"
        self.state.mkdir()
        self.open = ExitStack()
        self.store = self.another()

    def another(self, name: str = MAIN) -> SavedVersions:
        return SavedVersions(self.open.enter_context(closing(StateDb(str(self.state)))), self.clock, name)

    def save(self, **contents: bytes) -> str:
        """Save files with these contents, a second after the last ones, and return the id."""
        self.clock.go_on(1)
        entries = {path: file_of(content) for path, content in contents.items()}
        return self.store.save(Why.OVERWRITTEN, "box", entries).id

    def content(self, content: bytes) -> Path:
        return self.blobs / digest_of(content).hex()

    def contents(self) -> set[bytes]:
        return {path.read_bytes() for path in self.blobs.iterdir()}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SavedVersionsRig]:
    rig = SavedVersionsRig(tmp_path)
    with rig.open:
        yield rig


def digest_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_what_is_saved_is_restored(rig: SavedVersionsRig) -> None:
    """Files, links and folders with any name, their modes and times; the copies are no longer needed."""
    entries = {
        "d": SeenEntry(Kind.DIRECTORY, 0o750, mtime_s=1_600_000_000),
        "d/program": file_of(b"#!/bin/sh\n", 0o755),
        "d/to/deep": file_of(b"", 0o600, mtime_s=5),
        "empty folder": SeenEntry(Kind.DIRECTORY, 0o500),
        "ln": SeenEntry(Kind.SYMLINK, target=os.fsdecode(b"d/\xff")),
        **{name: file_of(os.fsencode(name)) for name in ODD_NAMES},
    }
    version = rig.store.save(Why.CONFLICT, "box-1", entries)
    for entry in entries.values():
        Path(entry.copy or rig.folder / "none").unlink(missing_ok=True)
    assert rig.another().all() == [version]
    assert (version.why, version.sandbox_id, version.at) == (Why.CONFLICT, "box-1", utc(rig.clock.wall))
    assert version.at.tzinfo is UTC
    assert version.paths["d/program"] == Entry(Kind.FILE, 0o755, 1_700_000_000, 10, digest=digest_of(b"#!/bin/sh\n"))
    assert version.size_bytes == sum(entry.size_bytes for entry in entries.values())
    top = rig.folder / "new/dest"
    extracted = rig.another().restore(version, str(top))
    assert (extracted.files, extracted.left_out) == (3 + len(ODD_NAMES), [])
    assert {name: (top / name).read_bytes() for name in ODD_NAMES} == {name: os.fsencode(name) for name in ODD_NAMES}
    assert (top / "d/program").stat().st_mode & 0o7777 == 0o755
    assert (top / "d/to/deep").stat().st_mtime == 5
    assert ((top / "d").stat().st_mtime, (top / "d").stat().st_mode & 0o777) == (1_600_000_000, 0o750)
    assert list((top / "empty folder").iterdir()) == []
    assert os.readlink(os.fsencode(top / "ln")) == b"d/\xff"
    assert rig.store.find(version.id) == version


def test_each_sandbox_counts_its_own(rig: SavedVersionsRig) -> None:
    """Of those in the one store of the workspace. Ids begin with their time, and differ within a second."""
    blue = rig.another("blue")
    rig.save(a=b"main's")
    for content in (b"blue's", b"blue's, newer"):
        blue.save(Why.OVERWRITTEN, "box-blue", {"a": file_of(content)})
    assert (rig.store.count, blue.count, len(blue.all())) == (1, 2, 3)
    assert [version.id for version in blue.all()] == [f"{utc(rig.clock.wall):%Y%m%d-%H%M%S}-0{n}" for n in (2, 1, 0)]


def test_nobody_else_can_read_it(rig: SavedVersionsRig) -> None:
    """Folders are 0700 and files 0600, whatever the umask and the modes in the sandbox; no set-id bit is kept."""
    before = os.umask(0)
    try:
        version = rig.store.save(Why.REMOVED, "box", {"a": file_of(b"x", 0o6777)})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in rig.state.rglob("*")}
    assert modes.pop("blobs") == 0o700
    assert set(modes.values()) == {0o600}
    assert version.paths["a"].mode == 0o777


def test_bases_are_kept_beside_it(rig: SavedVersionsRig) -> None:
    """What had been sent as its paths, with its bytes where they are known; not what is not known at all."""
    sent = Entry(Kind.FILE, 0o755, digest=digest_of(b"sent")), b"sent"
    bases = {"a": sent, "b": (Entry(Kind.FILE), None), "c": (Entry(Kind.DIRECTORY, 0o700), None), "gone": sent}
    version = rig.store.save(Why.CONFLICT, "box", {path: file_of(b"1") for path in "abc"}, bases)
    assert rig.another().all() == [version]
    assert version.bases == {"a": sent[0], "c": bases["c"][0]}
    assert rig.contents() == {b"1", b"sent"}
    assert rig.store.drop(version.id)
    assert rig.contents() == set()


def test_a_content_is_on_disk_once(rig: SavedVersionsRig) -> None:
    """Within a version and across versions; it stays as long as one version has it."""
    first = rig.save(a=b"same", b=b"same", c=b"other")
    second = rig.save(d=b"same")
    assert len(os.listdir(rig.blobs)) == 2
    assert rig.store.drop(first)
    assert rig.contents() == {b"same"}
    rig.store.restore(rig.store.all()[0], str(rig.folder / "dest"))
    assert (rig.folder / "dest/d").read_bytes() == b"same"
    assert rig.store.drop(second)
    assert not rig.store.drop(second)
    assert rig.contents() == set()


def test_what_is_saved_already(rig: SavedVersionsRig) -> None:
    """A file, a folder and a link are found again, so that a sync that fails again and again saves them once."""
    entries = {"f": file_of(b"1"), "d": SeenEntry(Kind.DIRECTORY, 0o755), "l": SeenEntry(Kind.SYMLINK, target="f")}
    version = rig.store.save(Why.CONFLICT, "box", entries)
    assert rig.store.holders(entries) == dict.fromkeys(entries, version.id)
    assert rig.store.holders(dict.fromkeys("fdx", entries["l"])) == {}
    rig.content(b"1").write_bytes(b"damaged")
    assert rig.store.holders(entries) == dict.fromkeys("dl", version.id)


def test_only_what_has_a_content_is_saved(rig: SavedVersionsRig) -> None:
    """Files without a copy, sockets and missing paths are not in the version; with nothing else there is none."""
    nothing = {"gone": ABSENT, "big": SeenEntry(Kind.FILE, size_bytes=9), "s": SeenEntry(Kind.OTHER)}
    version = rig.store.save(Why.REMOVED, "box", {"a": file_of(b"1"), **nothing})
    assert list(version.paths) == ["a"]
    with pytest.raises(ValueError, match="no entry"):
        rig.store.save(Why.REMOVED, "box", nothing)
    assert rig.store.all() == [version]


def test_a_wrong_copy_is_no_version(rig: SavedVersionsRig) -> None:
    """A copy that is not what was looked at, is missing, or is a link: an error, and nothing stays."""
    good, other = file_of(b"1"), file_of(b"2")
    link = rig.folder / "link"
    link.symlink_to(good.copy)
    for copy in (other.copy, str(rig.folder / "none"), str(link), str(rig.folder)):
        wrong = SeenEntry(Kind.FILE, 0o644, 0, 1, digest=digest_of(b"3"), copy=copy)
        with pytest.raises(OSError, match=r".") as failure:
            rig.store.save(Why.REMOVED, "box", {"a": good, "b": other, "c": wrong, "d": good})
        assert failure.value.filename == copy
        assert rig.contents() == set()
    assert rig.store.all() == []


def test_times_that_no_disk_can_store(rig: SavedVersionsRig) -> None:
    """They are saved, and what can be restored is."""
    entries = {
        "late": file_of(b"1", mtime_s=1 << 80),
        "early": file_of(b"2", mtime_s=-(1 << 80)),
        "../out": file_of(b"3"),
    }
    version = rig.store.save(Why.REMOVED, "box", entries)
    extracted = rig.store.restore(version, str(rig.folder / "top/dest"))
    assert [line.partition(":")[0] for line in extracted.left_out] == ["../out"]
    assert os.listdir(rig.folder / "top") == ["dest"]
    assert (rig.folder / "top/dest/late").read_bytes() == b"1"
    assert (rig.folder / "top/dest/early").read_bytes() == b"2"


@pytest.mark.parametrize("step", ["flush", "hold"])
def test_a_full_disk(rig: SavedVersionsRig, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Whenever it is full: one error, no version and none of its contents; the others are whole."""
    version = rig.save(a=b"1", b=b"2")
    monkeypatch.setattr(Blobs, step, full_disk)
    with pytest.raises(OSError, match="No space left"):
        rig.save(a=b"3", b=b"2")
    assert [found.id for found in rig.another().all()] == [version]
    assert rig.contents() == {b"1", b"2"}


def test_what_has_room_on_a_full_disk_is_saved_soon(rig: SavedVersionsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many the smaller ones, after few tries: nothing else goes on meanwhile."""
    tries = itertools.count()
    add = Blobs.add

    def add_small(blobs: Blobs, source: str, digest: bytes = b"", parent: int | None = None) -> tuple[bytes, int]:
        if os.path.getsize(source) > 2:
            next(tries)
            full_disk()
        return add(blobs, source, digest, parent)

    monkeypatch.setattr(Blobs, "add", add_small)
    versions = {f"{999 - number}": file_of(b"%d" % number) for number in range(500)}
    large = {path for path, version in versions.items() if version.size_bytes > 2}
    saver = VersionSaver(rig.store, "box", BaseStore(str(rig.folder), ChunkStore(str(rig.folder))))
    assert saver.save(Why.OVERWRITTEN, versions) == large
    assert {path for version in rig.store.all() for path in version.paths} == versions.keys() - large
    assert next(tries) < 30


@pytest.mark.parametrize("column", ["value = x'80'", "checksum = 7", "value = 'text'", "value = x''"])
def test_a_damaged_row(rig: SavedVersionsRig, caplog: pytest.LogCaptureFixture, column: str) -> None:
    """It is named once; the others are listed, its contents stay until it expires or is dropped."""
    damaged, whole = rig.save(a=b"1"), rig.save(a=b"2")
    change(rig.state, f"UPDATE saved SET {column} WHERE id = ?", damaged.encode())
    store = rig.another()
    for _ in range(2):
        assert [version.id for version in store.all()] == [whole]
        assert store.find(damaged) is None
        assert store.expire() == []
    assert len(caplog.records) == 1
    assert f"the saved version {damaged} was damaged" in caplog.text
    rig.save(a=b"3")
    assert rig.contents() == {b"1", b"2", b"3"}
    assert store.drop(damaged)
    assert rig.contents() == {b"2", b"3"}


def test_old_versions_expire(rig: SavedVersionsRig) -> None:
    """After thirty days, with damaged ones that are older; their place on the disk is free. Spared ones stay."""
    damaged, old, spared = rig.save(a=b"0"), rig.save(a=b"1"), rig.save(a=b"2")
    change(rig.state, "UPDATE saved SET checksum = 7 WHERE id = ?", damaged.encode())
    for day in range(30):
        assert rig.another().expire() == []
        assert [version.days for version in rig.another().all()] == [day, day]
        rig.clock.go_on(DAY_S)
    newest = rig.save(a=b"3")
    assert [version.id for version in rig.store.expire([spared])] == [old]
    assert rig.contents() == {b"2", b"3"}
    assert [version.id for version in rig.store.expire()] == [spared]
    assert [version.id for version in rig.another().all()] == [newest]


def test_a_content_that_another_process_drops_meanwhile(rig: SavedVersionsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written again: what `save` returned is whole."""
    dropped = rig.save(a=b"same", b=b"same", c=b"other")
    flush = Blobs.flush

    def flushed(blobs: Blobs, digests: Collection[bytes]) -> None:
        flush(blobs, digests)
        if rig.store.count == 1:
            rig.store.drop(dropped)

    monkeypatch.setattr(Blobs, "flush", flushed)
    rig.clock.go_on(1)
    entries = {path: file_of(content) for path, content in (("a", b"same"), ("b", b"same"), ("d", b"new"))}
    version = rig.another().save(Why.REMOVED, "box", entries)
    assert rig.another().all() == [version]
    assert rig.contents() == {b"same", b"new"}


def test_a_damaged_database_is_set_aside_without_its_versions(rig: SavedVersionsRig) -> None:
    """What can be read of the list is taken over, whatever page is overwritten but the first ones."""
    ids = {rig.save(**{f"file{number}": b"%d" % number}) for number in range(60)}
    arrived(rig.store._db, tree(7))
    rig.store._db.close()
    file = rig.state / NAME
    whole, kept = file.read_bytes(), []
    for page in range(len(whole) // 4096):
        file.write_bytes(whole[: page * 4096] + b"\xff" * 4096 + whole[(page + 1) * 4096 :])
        process = rig.another()
        base = SandboxState(process._db, TARGET).content.base
        found = {version.id for version in process.all()}
        assert found <= ids
        assert base.items() <= tree(7).items()
        kept.append(len(found))
        process._db.close()
    assert kept.count(60) > len(kept) / 2
    assert len([count for count in kept if count]) >= len(kept) - 2
    assert any(0 < count < 60 for count in kept)


def test_contents_that_were_damaged_or_removed(rig: SavedVersionsRig) -> None:
    """Whoever saves one again repairs it for all; where something else has their place, nothing can be saved."""
    version = rig.save(a=b"1", b=b"2")
    rig.content(b"1").write_bytes(b"!")
    rig.content(b"2").unlink()
    assert rig.store.damaged(rig.store.all()[0]) == ["a", "b"]
    rig.save(a=b"1")
    assert rig.store.damaged(rig.store.all()[1]) == ["b"]
    assert rig.store.drop(version)
    shutil.rmtree(rig.blobs)
    rig.blobs.write_text("a file")
    with pytest.raises(NotADirectoryError):
        rig.save(a=b"1")


# -- which expire


NOW = datetime(2026, 11, 26, 4, 1, 12, tzinfo=UTC)


def version(age: timedelta, **contents: int) -> SavedVersion:
    """Return a version with files of these sizes; the name is the content."""
    at = NOW - age
    paths = {
        name: Entry(Kind.FILE, size_bytes=size_bytes, digest=name.encode()) for name, size_bytes in contents.items()
    }
    return SavedVersion(f"{at:%Y%m%d}", at, Why.OVERWRITTEN, "box", int(at.timestamp()), paths, days=age.days)


def days(number: float) -> timedelta:
    return timedelta(days=number)


@pytest.mark.parametrize(
    ("passed", "days_counted", "is_counted_now"),
    [(days(0.9), 3, False), (days(1), 4, True), (days(90), 4, True), (-days(9), 3, True)],
)
def test_a_day_is_counted_at_a_time(passed: timedelta, days_counted: int, is_counted_now: bool) -> None:
    """However far the clock jumps; one that was set back counts from there."""
    before, now_s = version(days(3)), (NOW - days(3) + passed).timestamp()
    now = aged(before, now_s)
    assert (now.days, now.counted_at_s) == (days_counted, int(now_s) if is_counted_now else before.counted_at_s)


def test_the_oldest_go_first_for_size() -> None:
    """Until the rest fits; an older small one does not outlive a newer large one."""
    small, large, newest = version(days(3), a=1), version(days(2), b=SAVED_BYTES), version(days(1), c=1)
    assert expired([newest, small, large]) == [small, large]
    assert expired([version(days(2), b=SAVED_BYTES - 1), newest]) == []
    assert expired([]) == []
