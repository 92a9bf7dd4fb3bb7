"""A machine short of resources, failing disks and extreme trees: a whole snapshot, or an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.core.errors import TryLater, WorkspaceError
from syncd.merge.git import personal_excludes
from syncd.scan.file_reader import ContentReader
from tests.clock import LATER_S, ScriptedClock
from tests.component.git_folder import make_repository
from tests.component.limits import descriptors_left
from tests.component.pack_rig import MIB, InterferingClock, PackRig
from tests.component.test_state_files import KINDS


@pytest.fixture
def rig(tmp_path: Path) -> PackRig:
    return PackRig(tmp_path)


def test_with_any_number_of_descriptors_left_it_is_whole_or_refused(rig: PackRig, tmp_path: Path) -> None:
    """A scan without enough descriptors fails, is never partial or without rules, and succeeds again later."""
    personal = tmp_path / "ignore"
    personal.write_text("by-person\n")
    make_repository(rig.work, "by-repository\n")
    deep = rig.work / "a/b/c/d/e/f"
    deep.mkdir(parents=True)
    for folder in (rig.work, *deep.relative_to(rig.work).parents[:-1]):
        for name in ("file", "by-person", "by-repository", "by-folder"):
            (rig.work / folder / name).write_text(name)
        (rig.work / folder / ".gitignore").write_text("by-folder\n")
    (deep / "large").write_bytes(os.urandom(2 * MIB))
    manifest = rig.scan(str(personal)).manifest
    assert not [path for path in manifest if "by-" in path]
    rig.pack(manifest)  # all that is imported late is there
    scans = packs = 0
    refused: list[str] = []
    for free in range(24):
        rig.store.clear()
        try:
            with descriptors_left(free):
                assert rig.scan(str(personal)).manifest.keys() == manifest.keys()
            scans += 1
        except TryLater as failure:
            refused.append(str(failure))
        try:
            with descriptors_left(free):
                packed = rig.pack(manifest)
            assert (packed.manifest.keys(), packed.follow_up, packed.unread) == (manifest.keys(), [], {})
            packs += 1
        except (TryLater, OSError) as failure:
            refused.append(str(failure))
    assert [each for each in refused if "Too many open files" not in each] == []
    assert 4 < scans < 20
    assert 0 < packs < 20


def test_rules_that_cannot_be_read(rig: PackRig, tmp_path: Path) -> None:
    """A disk error in the user's exclude file stops the sync, as its paths must not be sent."""
    (rig.work / "f").touch()
    huge = tmp_path / "ignore"
    huge.touch()
    os.truncate(huge, 5 * MIB)
    with pytest.raises(WorkspaceError, match=r"its rules in .*ignore cannot be read"):
        rig.scan(str(huge))


@pytest.mark.parametrize("make", [lambda _: None, *KINDS.values()], ids=["nothing", *KINDS])
def test_an_exclude_file_that_is_none(rig: PackRig, tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A missing one, or another kind of file, has no rules, as for git; a FIFO is not waited for."""
    (rig.work / "f").touch()
    make(tmp_path / "ignore")
    for personal in (tmp_path / "ignore", Path(os.devnull), rig.work / "f/ignore"):
        assert list(rig.scan(str(personal)).manifest) == ["f"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", [".gitignore", ".syncdignore", ".git/info/exclude"])
def test_what_is_no_ignore_file(rig: PackRig, name: str, make: Callable[[Path], None]) -> None:
    """It has no rules, as in git, and a FIFO is not waited for."""
    (rig.work / "f").touch()
    in_repository = name.startswith(".git/")
    if in_repository:
        make_repository(rig.work).unlink()
    make(rig.work / name)
    assert set(rig.scan().manifest) == ({"f", name} if make is os.mkdir and not in_repository else {"f"})


@pytest.mark.parametrize("fifo", ["chunk", "loose", "folder"])
def test_a_fifo_in_the_spool(rig: PackRig, fifo: str) -> None:
    """Other files in the spool's place are removed, and not waited for."""
    (rig.work / "f").write_bytes(os.urandom(MIB))
    os.utime(rig.work / "f", (1, 1))
    chunks = rig.spool / "chunks"
    first = rig.pack()
    (chunk,) = [Path(piece.path) for piece in first.archive.pieces]
    chunk.unlink()
    if fifo == "chunk":
        os.mkfifo(chunk)
    elif fifo == "loose":
        for number in range(10):
            os.mkfifo(chunks / f"{number}.loose")
    else:
        chunks.rmdir()
        os.mkfifo(chunks)
    rig.start()
    archive = rig.pack(first.manifest).archive  # with digests, or no kept chunk would be used
    assert sum(map(len, archive.blocks(1 << 16))) == archive.size_bytes > MIB


def test_a_link_in_the_spool_is_not_followed(rig: PackRig, tmp_path: Path) -> None:
    """Its target is neither written to nor removed."""
    (rig.work / "f").write_text("content")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis").write_text("irreplaceable")
    chunks = rig.spool / "chunks"
    for number in range(10):
        (chunks / f"{number}.loose").symlink_to(mine / "thesis")
    rig.pack()
    assert (mine / "thesis").read_text() == "irreplaceable"
    for path in chunks.iterdir():
        path.unlink()
    chunks.rmdir()
    chunks.symlink_to(mine)
    rig.start()
    rig.pack()
    assert [path.name for path in mine.iterdir()] == ["thesis"]


def test_a_file_that_grows_for_ever_is_read_as_far_as_it_was(rig: PackRig) -> None:
    """A file is read up to its size at the scan."""
    path = rig.work / "log"
    path.write_bytes(b"x" * MIB)

    def check() -> None:
        os.truncate(path, path.stat().st_size + 2 * MIB)

    reader = ContentReader(str(rig.work), ScriptedClock(wall=LATER_S), check)
    assert dict(reader.digests(["log"])) == {}
    assert path.stat().st_size == 9 * MIB  # three pieces, a check before each, and one before all


def test_a_file_that_became_huge_since_the_scan(rig: PackRig) -> None:
    """It is not packed, without an error of the disk; the next scan refuses its size."""
    (rig.work / "a").write_text("a")
    (rig.work / "log").write_text("small")
    manifest = rig.scan().manifest
    os.truncate(rig.work / "log", 1 << 40)
    packed = rig.pack(manifest, most_bytes=MIB)
    assert packed.follow_up == ["log"]
    assert list(packed.manifest) == ["a"]
    assert packed.unread == {}


def test_a_small_file_that_becomes_huge_while_it_is_read(rig: PackRig) -> None:
    """It is packed as it was before, and no memory is allocated for its size; the next scan finds that it changed."""
    path = rig.work / "log"
    path.write_bytes(b"x")
    manifest = rig.scan().manifest
    path.write_bytes(b"xy")
    rig.start(clock=InterferingClock(happens=lambda: os.truncate(path, 1 << 43)))
    packed = rig.pack(manifest, most_bytes=1 << 31)
    assert (packed.follow_up, packed.manifest["log"].size_bytes) == ([], 2)
    assert packed.manifest["log"].stamp != rig.scan().manifest["log"].stamp


def test_a_chain_of_links_longer_than_any_stack(rig: PackRig) -> None:
    """Three thousand links in a chain are quick and handled like others."""
    for number in range(3_000):
        (rig.work / f"l{number:04}").symlink_to(f"l{number + 1:04}")
    (rig.work / "l3000").write_text("the end")
    (rig.work / "m").symlink_to("missing/../l0000")
    assert list(rig.scan().manifest) == [*(f"l{number:04}" for number in range(3_001)), "m"]


def test_git_that_does_not_answer(tmp_path: Path) -> None:
    """The user's exclude file is unknown then, which may pass."""
    git = tmp_path / "git"
    git.write_text("#!/no/such/interpreter\n")
    git.chmod(0o700)
    with pytest.raises(TryLater, match="git"):
        personal_excludes({"PATH": str(tmp_path), "HOME": str(tmp_path)})
