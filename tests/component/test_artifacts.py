"""Archives of an execution's directory, honest and hostile ones, on real files."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.archive import exported_files
from syncd.archive.exported_files import extract_files
from syncd.archive.extraction import BadArchive
from syncd.model.entry import Entry, Kind
from tests.archives import archive, member

MEMBERS = {"copies/0": b"zero", "copies/1": b"", "copies/2": b"x" * 70_000, "report.json": b"[]", "other": b"?"}
Packer = Callable[[dict[str, bytes]], bytes]


def tar_gz(files: dict[str, bytes], **fields: object) -> bytes:
    return archive(*(member(name, content, **fields) for name, content in files.items()))


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as zipper:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            zipper.writestr(info, content, method)
    return packed.getvalue()


class Home:
    """A folder for an archive and its copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = folder / "archive"
        self.not_kept = ""

    def extract(
        self, packed: bytes, expected: dict[str, bytes] | None = None, most_bytes: int = 1 << 20
    ) -> tuple[set[int], set[int]]:
        self.archive.write_bytes(packed)
        wanted = {
            name: Entry(Kind.FILE, size_bytes=len(content), digest=hashlib.sha256(content).digest())
            for name, content in (MEMBERS if expected is None else expected).items()
            if name.startswith("copies/")
        }
        files = extract_files(str(self.archive), wanted, f"{self.folder}/", most_bytes, lambda: None)
        self.not_kept = files.not_kept
        assert all(path == str(self.folder / name[7:]) for name, path in files.paths.items())
        return {int(name[7:]) for name in files.paths}, {int(name[7:]) for name in files.wrong}

    def left(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path != self.archive}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


FORMS = pytest.mark.parametrize("pack", [tar_gz, zipped, lambda files: zipped(files, zipfile.ZIP_STORED)])


@FORMS
@pytest.mark.parametrize("prefix", ["", "./", "syncd-job/", "./a/b/"])
def test_copies_are_extracted(home: Home, pack: Packer, prefix: str) -> None:
    """From a tar.gz or a zip, with any folder before them; private, and nothing else with them."""
    assert home.extract(pack({prefix + name: content for name, content in MEMBERS.items()})) == ({0, 1, 2}, set())
    assert home.left() == {"0": b"zero", "1": b"", "2": b"x" * 70_000}
    assert stat.S_IMODE((home.folder / "0").stat().st_mode) == 0o600


@FORMS
def test_what_is_not_as_reported_is_no_copy(home: Home, pack: Packer) -> None:
    """Other content, shorter, longer, missing: the other copies are extracted all the same."""
    given = {**MEMBERS, "copies/0": b"ZERO", "copies/1": b"longer", "copies/2": b"x" * 69_999, "copies/3": b"three"}
    del given["other"]
    expected = {**MEMBERS, "copies/3": b"three", "copies/4": b"four"}
    assert home.extract(pack(given), expected) == ({3}, {0, 1, 2})
    assert home.left() == {"3": b"three"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@FORMS
def test_of_two_members_with_one_name_the_right_one_counts(home: Home, pack: Packer) -> None:
    """Whichever comes first."""
    for first, second in (("copies/0", "x/copies/0"), ("x/copies/0", "copies/0")):
        assert home.extract(pack({first: b"ZERO", second: b"zero"}), {"copies/0": b"zero"}) == ({0}, set())
        assert home.left() == {"0": b"zero"}
        (home.folder / "0").unlink()


@pytest.mark.parametrize(
    "name", ["copies/00", "copies/-1", "copies/1/2", "../copies/0", "/copies/0", "copies/0\n", "0"]
)
@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_other_names_are_skipped(home: Home, pack: Packer, name: str) -> None:
    """Also those that lead outside."""
    assert home.extract(pack({name: b"zero"}), {"copies/0": b"zero"}) == (set(), set())
    assert home.left() == {}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_skipped(home: Home, kind: bytes) -> None:
    """No link of the archive is made here."""
    assert home.extract(tar_gz({"copies/1": b""}, type=kind, linkname="/etc/passwd")) == (set(), set())
    assert home.extract(zipped({"copies/0": b"zero"}, mode=stat.S_IFLNK | 0o777)) == (set(), set())
    assert home.left() == {}


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_truncated_archive_is_of_no_use(home: Home, pack: Packer) -> None:
    """Nothing of it stays, though it may hold what is wanted."""
    packed = pack({**MEMBERS, "noise": os.urandom(5000)})
    for length in (0, 1, 2, 30, len(packed) // 2, len(packed) - 30, len(packed) - 1):
        with pytest.raises(BadArchive):
            home.extract(packed[:length])
        assert home.left() == {}


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_damaged_archive_brings_nothing_wrong(home: Home, pack: Packer) -> None:
    """A flipped byte anywhere leads to a failure, or to copies that have their digest."""
    packed = pack({"copies/0": b"zero", "copies/2": MEMBERS["copies/2"]})
    for place in range(0, len(packed), 7):
        damaged = packed[:place] + bytes([packed[place] ^ 0x41]) + packed[place + 1 :]
        try:
            home.extract(damaged)
        except BadArchive:
            assert home.left() == {}
        for name, content in home.left().items():
            assert content == MEMBERS[f"copies/{name}"]
            (home.folder / name).unlink()


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_bomb_is_not_unpacked(home: Home, pack: Packer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What all members hold is limited, whatever they are."""
    monkeypatch.setattr(exported_files, "_OVERHEAD_BYTES", 1 << 20)
    with pytest.raises(BadArchive, match="more than 2 MiB"):
        home.extract(pack({"copies/0": b"zero", "bomb": bytes(4 << 20)}))
    assert home.left() == {}


def test_a_zip_with_a_long_list(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zipfile would read it into memory, as long as a header says it is."""
    monkeypatch.setattr(exported_files, "_LARGEST_READ", 70_000)
    with pytest.raises(BadArchive, match="list of members is too long"):
        home.extract(zipped({str(number): b"" for number in range(3000)}))


def test_a_zip_of_many_members(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused by the count of members in its list, before there is an object for each."""
    monkeypatch.setattr(exported_files, "_MOST_MEMBERS", 100)
    most, more = (zipped({str(number): b"" for number in range(count)}) for count in (100, 101))
    assert home.extract(most) == (set(), set())
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", lambda *_: pytest.fail("an object was made"))
    with pytest.raises(BadArchive, match="it has more than 100 members"):
        home.extract(more)


def test_a_zip_without_its_beginning(home: Home) -> None:
    """It is the archive that is damaged, not this machine that cannot keep files."""
    with pytest.raises(BadArchive, match="begins before it"):
        home.extract(b"PK" + zipped(MEMBERS)[8:])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(home: Home, method: int) -> None:
    """A dictionary of LZMA may take all of the memory."""
    with pytest.raises(BadArchive, match="another method"):
        home.extract(zipped(MEMBERS, method))


@pytest.mark.parametrize("packed", [b"", b"<html>", b"hello", b"7z\xbc\xaf\x27\x1c"])
def test_neither_form(home: Home, packed: bytes) -> None:
    """A page, an empty file, another archive."""
    with pytest.raises(BadArchive, match=r"neither a tar\.gz nor a zip"):
        home.extract(packed)


def test_an_occupied_name_stays_as_it_is(home: Home) -> None:
    """No link that lies there is followed, and the other copies are extracted."""
    target = home.folder / "target"
    (home.folder / "0").symlink_to(target)
    assert home.extract(tar_gz(MEMBERS)) == ({1, 2}, set())
    assert "cannot be kept on this machine (File exists)" in home.not_kept
    assert not target.exists()
    assert os.path.islink(home.folder / "0")


@FORMS
def test_a_report(home: Home, pack: Packer) -> None:
    """It is the file of that name that has the length and digest that the log named."""
    content = b"[1,2,3]"
    digest = hashlib.sha256(content).digest()
    home.archive.write_bytes(pack({"report.json": b"[]", "a/report.json": content, "b/report.json": content * 9}))
    for size, other in ((len(content), digest[::-1]), (6, digest), (8, digest), (len(content), digest)):
        wanted = {"report.json": Entry(Kind.FILE, size_bytes=size, digest=other)}
        files = extract_files(str(home.archive), wanted, f"{home.folder}/", size, lambda: None)
        assert bool(files.path("report.json")) is ((size, other) == (len(content), digest))
    assert home.left() == {"report.json": content}
