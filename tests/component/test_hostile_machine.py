"""A machine that runs out of things, disks that give out, trees that no one should make: whole, or refused and said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from syncd.archive.chunk_store import ChunkStore
from syncd.archive.packer import Packed, Packer
from syncd.core.errors import ConfigError, TryLater, WorkspaceError
from syncd.core.settings import load_config
from syncd.scan.file_reader import ContentReader
from syncd.scan.scanner import Scan, Scanner
from syncd.selection.git_config import personal_excludes
from syncd.selection.selection import Selection, SelectionSettings
from tests.clock import ScriptedClock
from tests.component.git_folder import make_repository

MIB = 1 << 20
LATER_S = 4_000_000_000.0


class Site:
    """A workspace with its scanner, its spool and what reads it."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.spool = folder / "spool"
        self.store = ChunkStore(str(self.spool))
        self.store.open()
        self.scanner = Scanner(str(self.work), Selection(SelectionSettings()))
        self.packer = Packer(str(self.work), self.store, ScriptedClock(wall=LATER_S))

    def scan(self, personal: str = "") -> Scan:
        return Scanner(str(self.work), Selection(SelectionSettings()), personal_excludes=personal).scan()

    def pack(self, most_bytes: int | None = None) -> Packed:
        return self.packer.pack(self.scan().manifest, most_bytes=most_bytes)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty workspace."""
    return Site(tmp_path)


_LADDER = """
import json, os, resource, sys
from syncd.core.clock import SystemClock
from syncd.core.errors import SyncdError
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.packer import Packer
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection, SelectionSettings
work, spool, personal = sys.argv[1:]
selection = Selection(SelectionSettings())
store = ChunkStore(spool)
store.open()
scanner = Scanner(work, selection, personal_excludes=personal)
packer = Packer(work, store, SystemClock())
list(packer.pack(scanner.scan().manifest).archive.blocks(1 << 16))  # all that is imported late is there
used = max(map(int, os.listdir("/proc/self/fd")))
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for free in range(24):
    found = []
    for part in ("scan", "pack"):
        store.keep_only([])
        manifest = Scanner(work, selection, personal_excludes=personal).scan().manifest if part == "pack" else None
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + free, hard))
        try:
            if part == "scan":
                manifest = scanner.scan().manifest
                found.append(sorted(manifest))
            else:
                packed = packer.pack(manifest)
                found.append([sorted(packed.manifest), packed.follow_up, sorted(packed.unread)])
        except SyncdError as failure:
            found.append(f"{failure.exit_code} {failure}")
        except OSError as failure:
            found.append(f"spool: {failure.strerror}")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(found))
"""


def test_with_any_number_of_descriptors_left_it_is_whole_or_refused(site: Site, tmp_path: Path) -> None:
    """Never a part of the workspace, never without the rules that keep something home, and whole again after it."""
    personal = tmp_path / "ignore"
    personal.write_text("by-person\n")
    make_repository(site.work, "by-repository\n")
    deep = site.work / "a/b/c/d/e/f"
    deep.mkdir(parents=True)
    for folder in (site.work, *deep.relative_to(site.work).parents[:-1]):
        for name in ("file", "by-person", "by-repository", "by-folder"):
            (site.work / folder / name).write_text(name)
        (site.work / folder / ".gitignore").write_text("by-folder\n")
    (deep / "large").write_bytes(os.urandom(2 * MIB))
    whole = sorted(site.scan(str(personal)).manifest)
    assert not [path for path in whole if "by-" in path]
    command = [sys.executable, "-c", _LADDER, str(site.work), str(tmp_path / "spool"), str(personal)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    refused = {"scan": 0, "pack": 0}
    for line in done.stdout.splitlines():
        scanned, packed = json.loads(line)
        if scanned != whole:
            assert scanned.startswith("75 ")
            assert "Too many open files" in scanned
            refused["scan"] += 1
        if packed != [whole, [], []]:
            assert packed.startswith(("75 ", "spool: Too many open files"))
            refused["pack"] += 1
    assert 5 <= refused["scan"] < 20, refused
    assert 5 <= refused["pack"] < 24, refused
    assert "by-person" not in done.stderr


def test_rules_that_cannot_be_read(site: Site, tmp_path: Path) -> None:
    """Of a person's and a repository's exclude file: what they keep home must not leave because a disk gave out."""
    (site.work / "f").touch()
    huge = tmp_path / "ignore"
    huge.touch()
    os.truncate(huge, 5 * MIB)
    with pytest.raises(WorkspaceError, match=r"its rules in .*ignore cannot be read"):
        site.scan(str(huge))
    (site.work / ".gitignore").touch()
    os.truncate(site.work / ".gitignore", 5 * MIB)
    with pytest.raises(WorkspaceError, match=r"its rules in \.gitignore cannot be read"):
        site.scan()


@pytest.mark.parametrize("kind", ["nothing", "folder", "fifo", "null", "link to nothing", "below a file"])
def test_an_exclude_file_that_is_none(site: Site, tmp_path: Path, kind: str) -> None:
    """Absent, or no file at all: no rules, as for git, and nobody waits for a FIFO's writer."""
    (site.work / "f").touch()
    personal = tmp_path / "ignore"
    match kind:
        case "folder":
            personal.mkdir()
        case "fifo":
            os.mkfifo(personal)
        case "null":
            personal = Path(os.devnull)
        case "link to nothing":
            personal.symlink_to("nowhere")
        case "below a file":
            personal = site.work / "f/ignore"
    assert list(site.scan(str(personal)).manifest) == ["f"]


@pytest.mark.parametrize("name", [".gitignore", ".syncdignore", ".git/info/exclude"])
def test_a_fifo_in_place_of_an_ignore_file(site: Site, name: str) -> None:
    """It is not waited for."""
    (site.work / "f").touch()
    if name.startswith(".git/"):
        make_repository(site.work).unlink()
    os.mkfifo(site.work / name)
    assert list(site.scan().manifest) == ["f"]


def test_a_fifo_in_place_of_the_configuration(tmp_path: Path) -> None:
    """It is refused: the daemon would wait for its writer at a reload, deaf to every signal."""
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match="no regular file"):
        load_config(str(tmp_path / "config.toml"))


@pytest.mark.parametrize("fifo", ["chunk", "loose", "folder"])
def test_a_fifo_in_the_spool(site: Site, fifo: str) -> None:
    """Whatever lies in the spool's way goes, and nobody waits for it."""
    (site.work / "f").write_bytes(os.urandom(MIB))
    os.utime(site.work / "f", (1, 1))
    chunks = site.spool / "chunks"
    first = site.pack()
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
    site.packer = Packer(str(site.work), ChunkStore(str(site.spool)), ScriptedClock(wall=LATER_S))
    archive = site.packer.pack(first.manifest).archive  # with digests, or no kept chunk would be looked for
    assert sum(map(len, archive.blocks(1 << 16))) == archive.size_bytes > MIB


def test_a_link_in_the_spool_leads_no_one_to_a_persons_files(site: Site, tmp_path: Path) -> None:
    """Neither is its target written to, nor is what lies in a linked folder taken away."""
    (site.work / "f").write_text("content")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis").write_text("irreplaceable")
    chunks = site.spool / "chunks"
    for number in range(10):
        (chunks / f"{number}.loose").symlink_to(mine / "thesis")
    site.pack()
    assert (mine / "thesis").read_text() == "irreplaceable"
    for path in chunks.iterdir():
        path.unlink()
    chunks.rmdir()
    chunks.symlink_to(mine)
    site.store = ChunkStore(str(site.spool))
    site.store.open()
    site.packer = Packer(str(site.work), site.store, ScriptedClock(wall=LATER_S))
    site.pack()
    assert [path.name for path in mine.iterdir()] == ["thesis"]


def test_a_file_that_grows_for_ever_is_read_as_far_as_it_was(site: Site) -> None:
    """Whoever reads to the end of a file that grows faster than it is read never comes back."""
    path = site.work / "log"
    path.write_bytes(b"x" * MIB)

    def check() -> None:
        os.truncate(path, path.stat().st_size + 2 * MIB)

    reader = ContentReader(str(site.work), ScriptedClock(wall=LATER_S), check)
    assert reader.digests(["log"]) == {}
    assert path.stat().st_size == 9 * MIB  # three pieces, a check before each, and one before all


def test_a_file_that_became_huge_since_the_scan(site: Site) -> None:
    """It is not packed, and not for want of disk: the next scan will refuse it by its size."""
    (site.work / "a").write_text("a")
    (site.work / "log").write_text("small")
    manifest = site.scan().manifest
    os.truncate(site.work / "log", 1 << 40)
    packed = site.packer.pack(manifest, most_bytes=MIB)
    assert packed.follow_up == ["log"]
    assert list(packed.manifest) == ["a"]
    assert packed.warnings == []


def test_a_small_file_that_becomes_huge_while_it_is_read(site: Site) -> None:
    """It is left to another sync if it grew beyond the limit, and no memory is allocated for its size."""
    path = site.work / "log"
    path.write_bytes(b"x")
    manifest = site.scan().manifest
    path.write_bytes(b"xy")

    class Growing(ScriptedClock):
        asked = 0

        def wall_s(self) -> float:
            self.asked += 1
            if self.asked == 2:  # not as it was scanned, so it is opened again, and then read
                os.truncate(path, 1 << 43)
            return super().wall_s()

    packed = Packer(str(site.work), site.store, Growing(wall=LATER_S)).pack(manifest, most_bytes=1 << 31)
    assert packed.follow_up == ["log"]
    assert packed.manifest == {}


def test_a_chain_of_links_longer_than_any_stack(site: Site) -> None:
    """Three thousand links, one to the other, cost little and are like any other, whatever the kernel follows."""
    for number in range(3_000):
        (site.work / f"l{number:04}").symlink_to(f"l{number + 1:04}")
    (site.work / "l3000").write_text("the end")
    (site.work / "m").symlink_to("missing/../l0000")
    assert list(site.scan().manifest) == [*(f"l{number:04}" for number in range(3_001)), "m"]


def test_a_hundred_thousand_files_in_one_directory(site: Site) -> None:
    """Memory is bounded by the number of entries, and most of it is given back: 100,000 names of 20 files."""
    many = site.work / "many"
    many.mkdir()
    for number in range(100_000):
        if number % 5_000 == 0:
            first = many / f"{number:06}"
            first.write_text(f"content {number}")
        else:
            os.link(first, many / f"{number:06}")
    told = _measured(site)
    assert told["entries"] == 100_001
    assert told["peak_kib"] < 400 << 10


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_million_entries(site: Site) -> None:
    """By hand: `python -m pytest -m long -s tests/component/test_hostile_machine.py`. It prints what it measured."""
    for folder in range(1_000):
        (site.work / f"{folder:03}").mkdir()
        for number in range(999):
            (site.work / f"{folder:03}/{number:03}").write_text(f"{number}")
    told = _measured(site)
    print(told)
    assert told["entries"] == 1_000_000
    assert told["peak_kib"] < 3 << 20


_MEASURED = """
import json, re, sys, time
from syncd.core.clock import SystemClock
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.packer import Packer
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection, SelectionSettings
# Not ru_maxrss, which counts what the process was before its exec, too: a copy of who started it.
def peak(): return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
work, spool = sys.argv[1:]
clock = SystemClock()
store = ChunkStore(spool)
store.open()
empty = peak()
began = clock.monotonic_s()
scanner = Scanner(work, Selection(SelectionSettings()))
manifest = scanner.scan().manifest
scan_s, scan_kib = clock.monotonic_s() - began, peak()
packed = Packer(work, store, clock).pack(manifest)
told = {"entries": len(packed.manifest), "archive": packed.archive.size_bytes, "empty_kib": empty, "scan_s": scan_s}
told |= {"scan_kib": scan_kib, "pack_s": clock.monotonic_s() - began - scan_s, "peak_kib": peak()}
print(json.dumps(told))
"""


def _measured(site: Site) -> dict[str, float]:
    command = [sys.executable, "-c", _MEASURED, str(site.work), str(site.spool)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def test_gits_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    """A person's exclude file is unknown then, and what it keeps home must not leave."""
    (tmp_path / "config").write_text("[core\n")
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": str(tmp_path / "config")}
    with pytest.raises(ConfigError, match="git"):
        personal_excludes(environ)
    (tmp_path / "config").write_text("[core]\nexcludesFile = /some/where\n")
    assert personal_excludes(environ) == "/some/where"


def test_git_that_does_not_answer(tmp_path: Path) -> None:
    """As above, but it may pass."""
    git = tmp_path / "git"
    git.write_text("#!/no/such/interpreter\n")
    git.chmod(0o700)
    with pytest.raises(TryLater, match="git"):
        personal_excludes({"PATH": str(tmp_path), "HOME": str(tmp_path)})
