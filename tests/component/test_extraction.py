"""Archives of other programs, extracted or compared: nothing leads outside, and nothing stays by half."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.archive import extraction
from syncd.archive.extraction import BadArchive, Extracted, MemberKind, extract, inner_path, members
from syncd.cli.verify import verify
from syncd.core.clock import SystemClock
from syncd.core.errors import NeedsPerson, Stop, TryLater
from syncd.scan.file_reader import ContentReader
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
from tests.archives import Member, archive, member


def a_file(name: str, content: bytes = b"content", mode: int = 0o644, mtime: float = 1_700_000_000) -> Member:
    return member(name, content, mode=mode, mtime=mtime)


def a_thing(name: str, kind: bytes, target: str = "", mode: int = 0o755) -> Member:
    return member(name, type=kind, linkname=target, mode=mode)


def a_link(name: str, target: str) -> Member:
    return a_thing(name, tarfile.SYMTYPE, target)


def a_folder(name: str, mode: int = 0o755) -> Member:
    return a_thing(name, tarfile.DIRTYPE, mode=mode)


def blocks(packed: bytes, size: int = 1000) -> Iterator[bytes]:
    return (packed[start : start + size] for start in range(0, len(packed), size))


def pulled(packed: bytes, destination: Path) -> Extracted:
    return extract(blocks(packed), str(destination), lambda: None)


def found(folder: Path) -> dict[str, str]:
    """Every path below the folder, with a file's text, a link's target, or "/"."""
    paths = {}
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(base) / name
            text = f"-> {path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text("latin-1")
            paths[str(path.relative_to(folder))] = text
    return paths


@pytest.mark.parametrize(
    ("name", "path"),
    [("a", "a"), ("./a//b/", "a/b"), (".", ""), ("./", ""), ("", ""), ("a/./b", "a/b"), ("...", "..."), ("..a", "..a")]
    + [(bad, None) for bad in ("/a", "../a", "a/../b", "a/..", "..", "a\0b", "//a")],
)
def test_names(name: str, path: str | None) -> None:
    """A path inside is normalized; any other name gives None."""
    assert inner_path(name) == path


def test_a_workspace_is_extracted_unchanged(tmp_path: Path) -> None:
    """Contents, modes, whole-second times, links and unusual names; modes and times of folders too."""
    odd = os.fsdecode(b"caf\xe9\n")
    packed = archive(
        a_folder(".", 0o700),
        a_folder("./d", 0o555),
        a_file("./d/run", b"#!", 0o755, 1_600_000_000),
        a_file(f"./{odd}", b"odd"),
        a_link("./ln", "d/run"),
        a_thing("./again", tarfile.LNKTYPE, "./d/run"),
        a_file("./early", mtime=-5),
    )
    extracted = pulled(packed, tmp_path / "new" / "dest")
    dest = tmp_path / "new" / "dest"
    assert found(dest) == {
        "d": "/",
        "d/run": "#!",
        odd: "odd",
        "ln": "-> d/run",
        "again": "#!",
        "early": "content",
    }
    assert extracted.left_out == []
    assert (extracted.files, extracted.content_bytes) == (5, 12)
    assert (dest / "d").stat().st_mode & 0o777 == 0o555
    assert (dest / "d" / "run").stat().st_mode & 0o777 == 0o755
    assert (dest / "d" / "run").stat().st_mtime == 1_600_000_000
    assert (dest / "early").stat().st_mtime == -5
    assert os.listdir(tmp_path / "new") == ["dest"]


# The members, what is found afterwards, and how many members were left out.
HOSTILE: dict[str, tuple[list[Member], dict[str, str], int]] = {
    "a name that climbs": ([a_file("../../evil"), a_file("a/../../evil")], {}, 2),
    "an absolute name": ([a_file("/tmp/syncd-evil")], {}, 1),
    "a link that climbs": ([a_link("ln", "../.."), a_link("abs", "/etc/passwd")], {}, 2),
    "a file through a link": ([a_link("d", "."), a_file("d/f")], {"d": "/", "d/f": "content"}, 1),
    "a file in a link's place": ([a_link("d", "../outside"), a_file("d/evil")], {"d": "/", "d/evil": "content"}, 1),
    "links that climb one through the other": (
        [a_folder("a"), a_folder("a/b"), a_link("a/b/top", "../.."), a_link("out", "a/b/top/../outside")],
        {"a": "/", "a/b": "/", "a/b/top": "-> ../.."},
        1,
    ),
    "a hard link to outside": ([a_thing("h", tarfile.LNKTYPE, "../outside/secret")], {}, 1),
    "an absolute hard link": ([a_thing("h", tarfile.LNKTYPE, "/etc/passwd")], {}, 1),
    "a hard link to itself": ([a_file("h"), a_thing("h", tarfile.LNKTYPE, "h")], {"h": "content"}, 1),
    "a hard link to a folder": ([a_folder("d"), a_thing("h", tarfile.LNKTYPE, "d")], {"d": "/"}, 1),
    "a hard link to what never came": ([a_thing("h", tarfile.LNKTYPE, "no")], {}, 1),
    "written through a hard link": (
        [a_file("a", b"1"), a_thing("b", tarfile.LNKTYPE, "a"), a_file("b", b"2")],
        {"a": "1", "b": "2"},
        0,
    ),
    "devices": (
        [a_thing("tty", tarfile.CHRTYPE), a_thing("sda", tarfile.BLKTYPE), a_thing("p", tarfile.FIFOTYPE)],
        {},
        3,
    ),
    "twice the same name": ([a_file("f", b"1"), a_file("./f", b"2")], {"f": "2"}, 0),
    "a folder in a file's place": ([a_file("f"), a_folder("f"), a_file("f/g")], {"f": "content"}, 2),
    "a file in a folder's place": ([a_folder("f"), a_file("f")], {"f": "/"}, 1),
    "a name too long": ([a_file("x" * 300), a_file("f")], {"f": "content"}, 1),
    "a time beyond any clock": ([a_file("f", mtime=1e300), a_file("g")], {"g": "content"}, 1),
    "set-id bits": ([a_file("f", mode=0o6755)], {"f": "content"}, 0),
    "a folder that lets nobody in": ([a_folder("d", 0), a_file("d/f")], {"d": "/", "d/f": "content"}, 0),
    "depth": (
        [a_file("d/" * 60 + "f")],
        {"/".join("d" * n): "/" for n in range(1, 61)} | {"d/" * 60 + "f": "content"},
        0,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_stays_inside(tmp_path: Path, name: str) -> None:
    """Harmless members are extracted, others are reported; nothing outside is changed or reached."""
    makes, expected, left_out = HOSTILE[name]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    extracted = pulled(archive(*makes), tmp_path / "dest")
    assert found(tmp_path / "dest") == expected
    assert len(extracted.left_out) == left_out
    assert sorted(os.listdir(tmp_path)) == ["dest", "outside"]
    assert found(outside) == {"secret": "secret"}
    assert not any(path.lstat().st_mode & 0o6000 for path in (tmp_path / "dest").rglob("*"))


def broken() -> dict[str, bytes]:
    """An archive of two files with every damage that a network, a disk or a tar that was killed causes."""
    packed = archive(a_file("f", os.urandom(3000)), a_file("g"))
    tar = gzip.decompress(packed)
    between, after = 512 + 3072, 512 + 3072 + 1024
    return {
        "cut in the middle": packed[: len(packed) // 2],
        "cut at the checksum": packed[:-4],
        "a wrong checksum": packed[:-8] + bytes(4) + packed[-4:],
        "no gzip": b"<html>sign in</html>",
        "no tar": gzip.compress(b"\1" * 2000),
        "a tar that ends early": gzip.compress(tar[:700]),
        "a tar that ends between two files": gzip.compress(tar[:between]),
        "a tar that ends after the last file": gzip.compress(tar[:after]),
        "a tar that ends in its last block": gzip.compress(tar[: after + 100]),
        "a tar of nothing": gzip.compress(b""),
        "rubbish in a header's place": gzip.compress(tar[:between] + b"\1" * 2000),
        "nothing": b"",
        "rubbish behind": packed + b"rubbish",
    }


@pytest.mark.parametrize("how", broken())
def test_a_broken_archive_leaves_nothing(tmp_path: Path, how: str) -> None:
    """The folder is not created, or stays empty."""
    with pytest.raises(BadArchive):
        pulled(broken()[how], tmp_path / "dest")
    assert os.listdir(tmp_path) == []


def test_several_gzip_members_are_one_archive() -> None:
    """Some programs write several; zeros after them are padding."""
    tar = gzip.decompress(archive(a_file("f", b"x" * 5000)))
    packed = gzip.compress(tar[:1000]) + gzip.compress(tar[1000:]) + bytes(700)
    assert [member.name for member, _ in members(blocks(packed, 7))] == ["f"]


def test_an_oversized_header_is_not_read() -> None:
    """An extension header may claim any length, and is read into memory as a whole."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, (8 << 30) - 1
    packed = gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(5 << 20))
    with pytest.raises(BadArchive, match=r"^the headers of one entry in it have more than 4 MiB$"):
        list(members(blocks(packed)))


@pytest.mark.parametrize("length", [5_000, 900_000, 3_000_000])
def test_a_name_that_is_too_long_stops_nothing(tmp_path: Path, length: int) -> None:
    """It costs its bytes, is named by its beginning, and what comes after it is there."""
    makes = a_file("a"), a_file("n/" * (length // 2) + "f", b"2" * 2000), a_file("b")
    packed = archive(*makes, form=tarfile.GNU_FORMAT)
    assert [(each.name[:4], len(each.name)) for each, _ in members(blocks(packed))][::2] == [("a", 1), ("b", 1)]
    extracted = pulled(packed, tmp_path / "dest")
    assert (extracted.files, len(extracted.left_out)) == (2, 1)
    assert extracted.left_out[0].startswith("n/n/n/")
    assert extracted.left_out[0].endswith("…: its name is too long")
    for cut in (len(packed) // 2, len(packed) - 30):
        with pytest.raises(BadArchive):
            pulled(packed[:cut], tmp_path / "cut")


def test_folders_that_are_too_deep_are_left_out(tmp_path: Path) -> None:
    """Python's own functions could not remove them again; the rest is there."""
    packed = archive(a_file("d/" * 1500 + "f"), a_file("d/" * 400 + "f"), form=tarfile.GNU_FORMAT)
    extracted = pulled(packed, tmp_path / "dest")
    assert extracted.files == 1
    assert extracted.left_out == [f"{('d/' * 1500)[:400]}: it is in more than 500 folders"]


def test_what_is_kept_until_the_end_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links beyond that are left out, and folders have no mode of their own; each that is left out is counted."""
    monkeypatch.setattr(extraction, "_MOST_KEPT_BYTES", 0)
    monkeypatch.setattr(extraction, "_MOST_NAMED", 1)
    packed = archive(a_folder("d", 0o500), a_file("d/f"), a_link("l", "d"), a_link("m", "d"))
    extracted = pulled(packed, tmp_path / "dest")
    assert (extracted.left_out, extracted.unnamed) == (["l: there are too many links"], 1)
    assert stat.S_IMODE((tmp_path / "dest/d").stat().st_mode) == 0o700


def test_a_hole_is_no_content_without_end() -> None:
    """A sparse file that holds nothing but a size is no file that is read."""
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 60)}
    sparse = member("sparse", b"1\n0\n0\n".ljust(512, b"\0"), pax_headers=headers)
    packed = archive(sparse, member("after"))
    found = [(each.name, each.kind) for each, _ in members(blocks(packed))]
    assert found == [("sparse", MemberKind.OTHER), ("after", MemberKind.FILE)]


def test_a_bomb_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extraction ends before the disk is nearly full, and what was written is removed."""
    real = os.fstatvfs

    def nearly_full(descriptor: int) -> os.statvfs_result:
        seen = list(real(descriptor))
        written_bytes = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        seen[4] = (extraction._SPARE_BYTES + (20 << 20) - written_bytes) // seen[1]
        return os.statvfs_result(seen)

    monkeypatch.setattr(os, "fstatvfs", nearly_full)
    bomb = archive(a_file("bomb", bytes(200 << 20)))
    assert len(bomb) < 1 << 20
    with pytest.raises(TryLater, match="MiB would be left"):
        pulled(bomb, tmp_path / "dest")
    assert os.listdir(tmp_path) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder that is not empty, a file and a link are refused; an empty folder keeps its mode."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "f").write_text("mine")
    (tmp_path / "empty").mkdir(mode=0o750)
    (tmp_path / "ln").symlink_to("empty")
    for name in ("full", "full/f", "ln"):
        with pytest.raises(NeedsPerson, match="empty"):
            pulled(archive(a_file("f")), tmp_path / name)
    assert (tmp_path / "full" / "f").read_text() == "mine"
    pulled(archive(a_file("f")), tmp_path / "empty")
    assert found(tmp_path / "empty") == {"f": "content"}
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o750


def test_an_empty_folder_stays_the_same_one(tmp_path: Path) -> None:
    """It is filled, not replaced: it may be a mount, or the current directory of a shell."""
    destination = tmp_path / "empty"
    destination.mkdir()
    inode = destination.stat().st_ino
    pulled(archive(a_folder("d", 0o555), a_file("d/f"), a_file(".hidden"), a_link("ln", "d")), destination)
    assert found(destination) == {"d": "/", "d/f": "content", ".hidden": "content", "ln": "-> d"}
    assert (destination / "d").stat().st_mode & 0o777 == 0o555
    assert destination.stat().st_ino == inode
    assert os.listdir(tmp_path) == ["empty"]


def test_what_is_put_there_meanwhile_stays(tmp_path: Path) -> None:
    """A folder that is empty no more when all is read is left as it is."""
    destination = tmp_path / "empty"
    destination.mkdir()

    def mine() -> None:
        (destination / "f").write_text("mine")

    with pytest.raises(TryLater, match="not empty"):
        extract(blocks(archive(a_file("f"))), str(destination), mine)
    assert found(destination) == {"f": "mine"}


def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    """Also in the middle of a file."""
    calls = iter(range(4))

    def check() -> None:
        if next(calls, None) is None:
            raise Stop

    with pytest.raises(Stop):
        extract(blocks(archive(a_file("f", os.urandom(4 << 20)))), str(tmp_path / "dest"), check)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace with one path of each kind."""
    folder = tmp_path / "work"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "f").write_text("content")
    (folder / "big").write_bytes(b"x" * 700_000)
    (folder / "run").write_text("#!")
    (folder / "run").chmod(0o755)
    (folder / "ln").symlink_to("d/f")
    (folder / "z").write_text("content")
    return folder


SAME = {
    "d": a_folder("./d"),
    "d/f": a_file("./d/f"),
    "big": a_file("./big", b"x" * 700_000),
    "run": a_file("./run", b"#!", 0o700),
    "ln": a_link("./ln", "d/f"),
    "z": a_thing("./z", tarfile.LNKTYPE, "./d/f"),
}


@pytest.mark.parametrize(
    ("changed", "missing", "different", "only_there"),
    [
        ({}, [], [], []),
        ({"more": a_file("../more")}, [], [], []),
        ({"d/f": None}, ["d/f"], ["z"], []),
        ({"d/f": a_file("d/f", b"CONTENT")}, [], ["d/f", "z"], []),
        ({"big": a_file("big", b"x" * 699_999 + b"y")}, [], ["big"], []),
        ({"big": a_file("big", b"x" * 699_999)}, [], ["big"], []),
        ({"run": a_file("run", b"#!", 0o644)}, [], ["run"], []),
        ({"ln": a_link("ln", "d/g")}, [], ["ln"], []),
        ({"ln": a_file("ln")}, [], ["ln"], []),
        ({"d": None}, ["d"], [], []),
        ({"git": a_file("d/.git/x")}, [], [], ["d/.git"]),
        ({"d": a_file("d")}, [], ["d"], []),
        ({"more": a_file("more")}, [], [], ["more"]),
        ({"again": a_file("d/f", b"later")}, [], ["d/f"], []),
        ({"run": a_thing("run", tarfile.LNKTYPE, "d/f")}, [], ["run"], []),
    ],
)
def test_verify(
    work: Path, changed: dict[str, Member | None], missing: list[str], different: list[str], only_there: list[str]
) -> None:
    """Each kind of difference between two trees is reported with its path; a hard link there is a file, and what has no
    valid name here is counted.
    """
    makes = [a_folder("."), *(make for make in {**SAME, **changed}.values() if make)]
    manifest = Scanner(str(work), Selection()).scan().manifest
    reader = ContentReader(str(work), SystemClock())
    found, outside = verify(reader, manifest, blocks(archive(*makes)), lambda: None, "")
    assert found == {"missing": missing, "different": different, "only_there": only_there}
    assert outside == sum(make[0].name.startswith("../") for make in makes)
