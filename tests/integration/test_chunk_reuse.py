"""Stored chunks save work and change nothing else: each archive equals the one that is made without them.

The same series of changes runs with the chunks stored, never stored, removed and damaged between any two syncs. Each
time the sandbox ends equal to the workspace, by archives that are the same byte for byte. As far as stored chunks could
break them, these are tested too: the sandbox converges in one sync; no change is lost that happens during a sync, or
between an interrupted upload and the next; no torn file counts as done; excluded and outside paths are neither in an
archive nor in the spool; keys are not in the spool; a kill at any time needs no repair; the spool stays within twice
the archive; unchanged files are not uploaded. Signals, logs, memory and an idle process's CPU are tested with the real
command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from syncd.archive.chunk_store import ChunkStore, Piece, PieceWriter
from syncd.core.directories import directories_for
from syncd.core.errors import Stop
from syncd.core.waiter import Superseded
from syncd.daemon import build
from syncd.remote.failure import FailureAction
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import Outcome
from tests.integration.sync_rig import KEY, Rig, Witness, rigged

# By this clock every file is old enough for its stamp to be believed.
LATER_S = 4_000_000_000.0
# All paths have this time, so that only what the story says makes two archives differ.
THEN_NS = 1_700_000_000_000_000_000
LARGE = "large/a"  # stored in several reads


class CountingStore(ChunkStore):
    """The real store, which counts the pieces that are made."""

    made = 0

    def writer(self) -> PieceWriter:
        self.made += 1
        return super().writer()


class ForgetfulStore(CountingStore):
    """A store that never finds a piece."""

    def get(self, key: str) -> Piece | None:
        return None


class Stage:
    """A rig whose spool can be damaged, and whose sandbox holds exactly the last archive."""

    def __init__(self, rig: Rig, store_type: type[CountingStore]) -> None:
        self.rig = rig
        self.stores: list[CountingStore] = []
        self.store_type = store_type
        self.most_bytes = 0
        self.archive_bytes = 0
        # The rest of an older archive would hide what a newer one lacks.
        rig.emulator.faults.on("initialize", "before", lambda _: _empty(rig.sandbox.workspace))
        # Programs run in real time: in the test's, each has ended whenever someone looks.
        rig.emulator.faults.on("execution-logs", "before", lambda _: rig.sandbox.wait())
        rig.clock.wall = LATER_S
        rig.meanwhile = self.measure

    def store(self, folder: str) -> CountingStore:
        self.stores.append(self.store_type(folder))
        return self.stores[-1]

    @property
    def work(self) -> Path:
        return self.rig.workspace

    @property
    def made(self) -> int:
        return sum(store.made for store in self.stores)

    @property
    def spool(self) -> Path:
        return Path(directories_for(str(self.work), self.rig.environ).spool) / "chunks"

    def chunks(self) -> list[Path]:
        """The files of stored chunks; none if something else has their place."""
        return sorted(path for path in self.spool.iterdir() if path.is_file())

    def chunks_of(self, *paths: str) -> list[Path]:
        """The chunks that hold these files' headers."""
        found = []
        for chunk in self.chunks():
            tar = _inflated(chunk)
            if any(path.encode() + b"\0" in tar for path in paths):
                found.append(chunk)
        assert len(found) == len(paths)
        return found

    def inflated(self) -> bytes:
        """The content of all stored chunks."""
        return b"".join(_inflated(chunk) for chunk in self.chunks())

    def measure(self) -> None:
        """Record the largest size of the spool."""
        if self.spool.is_dir():
            with os.scandir(self.spool) as items:
                sizes = [item.stat(follow_symlinks=False).st_size for item in items]
            self.most_bytes = max(self.most_bytes, sum(sizes))

    def write(self, path: str, content: bytes) -> None:
        file = self.work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def settle_times(self) -> None:
        for path in (self.work, *self.work.rglob("*")):
            if path.lstat().st_mtime_ns != THEN_NS:
                os.utime(path, ns=(THEN_NS, THEN_NS), follow_symlinks=False)

    def sync(self, witness: Witness | None = None) -> Outcome:
        """A sync after which both sides must be equal, by at most one upload."""
        before = self.rig.emulator.request_log.count("upload", 200)
        outcome, _ = self.rig.sync(witness=witness)
        self.check_equal()
        uploads = self.rig.emulator.request_log.count("upload", 200) - before
        assert uploads == (1 if outcome.sync else 0), "a damaged archive was taken"
        if outcome.sync:
            self.archive_bytes = max(self.archive_bytes, outcome.sync.archive_bytes)
        self.measure()
        return outcome

    def check_equal(self) -> None:
        assert tree(self.rig.sandbox.workspace) == tree(self.work)


def _inflated(chunk: Path) -> bytes:
    """The content of a chunk, perhaps with some bytes from its footer."""
    content = chunk.read_bytes()
    inflate = zlib.decompressobj(-15)
    tar = bytearray()
    with contextlib.suppress(zlib.error):
        for start in range(0, len(content), 64):
            tar += inflate.decompress(content[start : start + 64])
    return bytes(tar)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def tree(top: Path) -> dict[str, tuple[str, object]]:
    """Paths with kind and what a sandbox keeps: content and the execute permission, or the target."""
    found: dict[str, tuple[str, object]] = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            found[name] = "link", os.readlink(path)
        elif stat.S_ISDIR(status.st_mode):
            found[name] = "folder", None
        else:
            found[name] = "file", (bool(status.st_mode & 0o100), path.read_bytes())
    return found


@contextlib.contextmanager
def staged(folder: Path, store_type: type[CountingStore] = CountingStore) -> Iterator[Stage]:
    """A workspace of several chunks that is not in the sandbox yet."""
    with rigged(folder) as rig, pytest.MonkeyPatch.context() as patch:
        stage = Stage(rig, store_type)
        patch.setattr(build, "ChunkStore", stage.store)
        chance = Random(8)
        stage.write(LARGE, chance.randbytes(1_300_000))
        for number in range(5):  # each a chunk of its own
            stage.write(f"middle/{number}", chance.randbytes(900) * 600)
        for number in range(20):
            stage.write(f"small/{number % 4}/{number}", chance.randbytes(40) * 50)
        stage.settle_times()
        yield stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The workspace, not in the sandbox yet."""
    with staged(tmp_path) as stage:
        yield stage


# What may become of a chunk's file. Each is done to all chunks it is given.


def _flip_body(chunks: list[Path]) -> None:
    for chunk in chunks:
        content = bytearray(chunk.read_bytes())
        content[len(content) // 3] ^= 4
        chunk.write_bytes(content)


def _flip_foot(chunks: list[Path]) -> None:
    for place, chunk in enumerate(chunks):
        content = bytearray(chunk.read_bytes())
        content[-1 - place % 12] ^= 4  # what the chunk says of its own content
        chunk.write_bytes(content)


def _cut(chunks: list[Path]) -> None:
    for chunk in chunks:
        os.truncate(chunk, chunk.stat().st_size // 2)


def _swapped(chunks: list[Path]) -> None:
    """Each chunk gets the name of the next one."""
    contents = [chunk.read_bytes() for chunk in chunks]
    for chunk, content in zip(chunks, contents[1:] + contents[:1], strict=True):
        chunk.write_bytes(content)


def _foreign(chunks: list[Path]) -> None:
    for chunk in chunks:
        chunk.write_bytes(b"a file of someone else's\n" * 400)


def _folder(chunks: list[Path]) -> None:
    for chunk in chunks:
        chunk.unlink()
        chunk.mkdir()
        (chunk / "f").write_text("x")


def _unopenable(chunks: list[Path]) -> None:
    """Not even root can open it: removing the read permission would not stop root."""
    for chunk in chunks:
        chunk.unlink()
        chunk.symlink_to(chunk)


def _deleted(chunks: list[Path]) -> None:
    for chunk in chunks:
        chunk.unlink()


HARMS = [_flip_body, _flip_foot, _cut, _swapped, _foreign, _folder, _unopenable, _deleted]


# What may become of the spool.


def _kept(stage: Stage) -> None:
    """Change nothing."""


def _spool_removed(stage: Stage) -> None:
    shutil.rmtree(stage.rig.folder / "cache", ignore_errors=True)


def _spool_by_another(stage: Stage) -> None:
    chunks = stage.spool
    shutil.rmtree(chunks)
    chunks.mkdir()
    (chunks / "notes").mkdir()
    (chunks / "0.chunk").write_text("x")


def _spool_by_a_file(stage: Stage) -> None:
    if stage.spool.is_dir():
        shutil.rmtree(stage.spool)
        stage.spool.write_text("x")


FATES = [_kept, _spool_removed, _spool_by_another, _spool_by_a_file]


# The story: each step is a change, and whether it is one that must be sent.


def _edit(stage: Stage) -> bool:
    stage.write("small/1/5", b"edited")
    return True


def _edit_large(stage: Stage) -> bool:
    """Change one bit, with the same length and time."""
    with (stage.work / LARGE).open("r+b") as file:
        file.seek(1_200_000)
        byte = file.read(1)
        file.seek(1_200_000)
        file.write(bytes([byte[0] ^ 1]))
    return True


def _add(stage: Stage) -> bool:
    stage.write("small/2/new", b"new" * 1000)
    stage.write("fresh/deep/er", b"")
    (stage.work / "link").symlink_to("middle/0")
    return True


def _rename(stage: Stage) -> bool:
    (stage.work / "middle/2").rename(stage.work / "small/moved")
    (stage.work / "small/3").rename(stage.work / "small/three")
    return True


def _swap_contents(stage: Stage) -> bool:
    """Two files of one length are exchanged: no path, size or time changes."""
    one, other = stage.work / "middle/0", stage.work / "middle/1"
    one.rename(stage.work / "between")
    other.rename(one)
    (stage.work / "between").rename(other)
    return True


def _mode(stage: Stage) -> bool:
    (stage.work / "small/0/4").chmod(0o755)
    return True


def _touch(stage: Stage) -> bool:
    os.utime(stage.work / "small/0/8")
    return False


def _write_again(stage: Stage) -> bool:
    stage.write("small/0/12", (stage.work / "small/0/12").read_bytes())
    return False


def _nothing(stage: Stage) -> bool:
    return False


def _delete(stage: Stage) -> bool:
    (stage.work / "middle/3").unlink()
    shutil.rmtree(stage.work / "small/1")
    return True


def _replace_by_other_kinds(stage: Stage) -> bool:
    (stage.work / "middle/4").unlink()
    (stage.work / "middle/4").mkdir()
    (stage.work / "link").unlink()
    stage.write("link", b"no link any more")
    return True


def _take_back(stage: Stage) -> bool:
    """Restore an earlier content, whose chunk is no longer stored."""
    return _edit_large(stage)


STORY = [
    _edit,
    _edit_large,
    _add,
    _touch,
    _rename,
    _swap_contents,
    _write_again,
    _mode,
    _nothing,
    _delete,
    _replace_by_other_kinds,
    _take_back,
]


def told(stage: Stage, happens: Callable[[Stage], None]) -> list[str]:
    """The story, with something happening to the spool before each sync, and a new process for every other one.

    Returns the digests of the archives.
    """
    digests: list[str] = []
    for number, step in enumerate((_nothing, *STORY)):
        new = step(stage) or not digests
        if step is not _touch:
            stage.settle_times()
        if digests:
            happens(stage)
        if number % 2:
            stage.rig.restart()
        outcome = stage.sync()
        assert (outcome.sync is not None) == new, step.__name__
        assert outcome.follow_up == ()
        digests.append(outcome.sync.sha256 if outcome.sync else "")
    return digests


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The archives of the series if nothing is ever stored."""
    with staged(tmp_path_factory.mktemp("reference"), ForgetfulStore) as stage:
        digests = told(stage, _kept)
        assert stage.made > 60
        return digests


@pytest.mark.parametrize("fate", FATES)
def test_the_series_whatever_happens_to_the_spool(
    stage: Stage, fate: Callable[[Stage], None], reference: list[str]
) -> None:
    """Kept, removed, emptied or replaced before each sync: the same archives, the same syncs, bounded disk usage."""
    assert told(stage, fate) == reference
    if fate is _kept:
        assert stage.made < 30
    assert stage.most_bytes <= 2 * stage.archive_bytes


@pytest.mark.parametrize("harm", [_flip_body, _flip_foot, _cut, _swapped, _folder, _unopenable])
def test_the_series_with_every_chunk_damaged(
    stage: Stage, harm: Callable[[list[Path]], None], reference: list[str]
) -> None:
    """All stored chunks are damaged before each sync: each sync sends the right content at once."""
    assert told(stage, lambda stage: harm(stage.chunks())) == reference


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("harm", HARMS)
def test_only_damaged_chunks_are_made_again(
    stage: Stage, harm: Callable[[list[Path]], None], *, restarted: bool
) -> None:
    """Two chunks are damaged and a third changes: no fourth is made, and the next sync has nothing to repair."""
    stage.sync()
    made = stage.made
    assert made >= 7
    _edit(stage)
    stage.settle_times()
    harm(stage.chunks_of("middle/0", "middle/3"))
    if restarted:
        stage.rig.restart()
    stage.sync()
    if harm is _flip_foot and not restarted:
        assert stage.made - made == 1  # a process that knows a chunk does not ask what its file says of it
    elif restarted and harm is not _flip_body:
        assert stage.made - made == 3
    else:
        assert stage.made - made == 4  # found as it goes out; what was never read before packing is then read again
    stage.rig.restart()
    made = stage.made
    _edit_large(stage)
    stage.settle_times()
    stage.sync()
    left = 2 if harm is _flip_foot and not restarted else 0
    assert stage.made - made == 1 + left


BETWEEN = [*((harm, "upload") for harm in HARMS), (_flip_body, "pause"), (_cut, "pause")]


class Damaging(Witness):
    """Damages all chunks when the first upload begins, or while its failure is waited out."""

    harm: Callable[[], None]
    at: str

    def stage(self, state: State) -> None:
        super().stage(state)
        if self.at == "upload" and self.stages.count(State.UPLOADING) == 1 and state is State.UPLOADING:
            self.harm()

    def pause(self, wait_s: float, action: FailureAction) -> None:
        super().pause(wait_s, action)
        if self.at == "pause" and len(self.waits) == 1:
            self.harm()


@pytest.mark.parametrize(("harm", "at"), BETWEEN)
def test_damage_between_packing_and_sending(stage: Stage, harm: Callable[[list[Path]], None], at: str) -> None:
    """It is found while the archive is sent; one more attempt sends the right content."""
    stage.sync()
    _edit(stage)
    witness = Damaging(stage.rig.clock)
    witness.harm, witness.at = lambda: harm(stage.chunks()), at
    if at == "pause":
        stage.rig.emulator.faults.script("upload: reset mid-body")
    stage.sync(witness)
    assert witness.stages.count(State.UPLOADING) <= 3


@pytest.mark.parametrize("cut_off", ["upload: reset mid-body", "upload: lost", "initialize: 503", "initialize: lost"])
@pytest.mark.parametrize(("restarted", "harm"), [(False, _flip_body), (True, _swapped)], ids=["running", "restarted"])
def test_an_interrupted_sync(
    stage: Stage, harm: Callable[[list[Path]], None], cut_off: str, *, restarted: bool
) -> None:
    """An upload or initialize is interrupted, chunks are damaged, the workspace changes: the next sync is complete."""
    stage.sync()
    _edit(stage)
    stage.rig.emulator.faults.script(cut_off)
    with pytest.raises(Superseded):
        stage.rig.sync(witness=Witness(stage.rig.clock, ends=Superseded()))
    harm(stage.chunks()[::2])
    _edit_large(stage)
    if restarted:
        stage.rig.restart()
    stage.sync()


def test_a_lost_answer_and_a_lost_spool(stage: Stage) -> None:
    """The archive in the bucket needs only its initialize, even if its chunks are lost."""
    stage.rig.emulator.faults.script("initialize: 503")
    with pytest.raises(Stop):
        stage.rig.sync(witness=Witness(stage.rig.clock, ends=Stop()))
    _spool_removed(stage)
    stage.rig.restart()
    outcome, _ = stage.rig.sync()
    stage.check_equal()
    assert outcome.word == "initialized"
    assert stage.rig.emulator.request_log.count("upload") == 1


@pytest.mark.parametrize("forgetful", [False, True], ids=["kept", "never-kept"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, *, forgetful: bool) -> None:
    """Its chunk is for one archive only, and another sync sends the file as it is then."""
    with staged(tmp_path, ForgetfulStore if forgetful else CountingStore) as stage:
        stage.sync()
        left = list(range(60))

        def writes_on() -> None:
            stage.measure()
            if left:
                with (stage.work / LARGE).open("r+b") as file:
                    file.seek(100_000 * (left.pop() % 13))
                    file.write(b"torn")

        stage.rig.meanwhile = writes_on
        outcome, _ = stage.rig.sync()
        left.clear()
        assert outcome.follow_up == outcome.torn == (LARGE,)
        stage.rig.restart()
        for _ in range(2):  # what nothing has mended yet is named, by the next process too
            assert [warning.key for warning in stage.rig.cycle.warnings] == [f"torn:{LARGE}"]
        assert stage.sync().word == "initialized"
        assert stage.rig.cycle.warnings == []
        assert stage.sync().word == "unchanged"
        stage.rig.restart()
        assert stage.rig.cycle.warnings == []
        assert stage.sync().word == "unchanged"
        assert all(path.suffix == ".chunk" for path in stage.chunks())


def test_a_change_while_an_archive_is_sent(stage: Stage) -> None:
    """It is in the next archive, although all chunks that it changes were stored."""

    class Meddler(Witness):
        def stage(self, state: State) -> None:
            super().stage(state)
            if state is State.UPLOADING:
                _edit_large(stage)
                stage.write("small/2/during", b"x")

    stage.rig.sync(witness=Meddler(stage.rig.clock))
    stage.sync()
    assert "small/2/during" in tree(stage.rig.sandbox.workspace)


def test_a_path_that_becomes_excluded(stage: Stage) -> None:
    """A file that is ignored, becomes a link to outside or gets a secret's name is in no archive and no chunk."""
    outside = stage.rig.folder / "outside"
    outside.mkdir()
    (outside / "0").write_bytes(b"0utside" * 300)
    for name in ("small/1/ignored", "small/2/plain"):
        stage.write(name, b"5ecret")
    stage.settle_times()
    stage.sync()
    assert stage.inflated().count(b"5ecret") == 2
    stage.write(".syncdignore", b"ignored\n")
    (stage.work / "small/2/plain").rename(stage.work / "small/2/.env")
    (stage.work / "middle").rename(stage.rig.folder / "middle")
    (stage.work / "middle").symlink_to(outside)
    stage.rig.sync()
    there = tree(stage.rig.sandbox.workspace)
    assert ".syncdignore" in there
    assert not {"small/1/ignored", "small/2/.env", "middle", "middle/0"} & set(there)
    assert b"5ecret" not in stage.inflated()
    assert b"0utside" not in stage.inflated()


def test_the_spool_holds_no_key(stage: Stage) -> None:
    """It holds only what is uploaded anyway, in private folders, and neither the key nor a signed URL."""
    stage.sync()
    _edit(stage)
    stage.sync()
    for folder in (stage.spool, stage.spool.parent, stage.spool.parent.parent):
        assert folder.stat().st_mode & 0o077 == 0
    kept = b"".join(path.read_bytes() for path in stage.chunks()) + stage.inflated()
    for secret in (KEY, "X-Goog", "http://"):
        assert secret.encode() not in kept


def test_a_kill_at_any_time(stage: Stage) -> None:
    """With the disk as it was at any step of a sync, the next process does everything, within the disk's bounds."""
    stage.sync()
    _edit(stage)
    _edit_large(stage)
    folders = [stage.rig.folder / name for name in ("state", "cache")]
    copies: list[list[Path]] = []
    steps = iter(range(1000))

    def remember() -> None:
        stage.measure()
        if next(steps) % 4 == 0:
            copies.append(
                [shutil.copytree(f, stage.rig.folder / "copies" / f"{len(copies)}" / f.name) for f in folders]
            )

    stage.rig.meanwhile = remember
    stage.rig.sync()
    stage.rig.meanwhile = stage.measure
    assert len(copies) >= 5
    for copy in copies:
        for folder, copied in zip(folders, copy, strict=True):
            shutil.rmtree(folder)
            copied.rename(folder)
        stage.rig.restart()
        made = stage.made
        assert stage.sync().word == "initialized"
        assert stage.made - made <= 2
        assert all(path.suffix == ".chunk" for path in stage.chunks())
    assert stage.most_bytes <= 2 * stage.archive_bytes


def test_stops_while_packing_do_not_fill_the_disk(stage: Stage) -> None:
    """What repeatedly stopped packings leave, while files change, is bounded."""
    stage.sync()

    def stops() -> None:
        stage.measure()
        if len(set(stage.spool.glob("*.chunk")) - before) >= 4:
            raise Stop

    for number in range(10):
        before = set(stage.chunks())
        for name in range(16):  # more than are compressed at a time
            stage.write(f"large/{name}", Random(name + 16 * number).randbytes(540_000))
        stage.rig.meanwhile = stops
        with pytest.raises(Stop):
            stage.rig.sync()
    stage.rig.meanwhile = stage.measure
    stage.sync()
    assert stage.most_bytes <= 2 * stage.archive_bytes
