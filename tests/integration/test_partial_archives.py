"""Archives of only the changes: small, sufficient, and used only after the sandbox has proved that they work."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import Stop
from syncd.core.waiter import Superseded
from tests.integration.sync_rig import RecordingObserver, Rig, rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as it:
        it.keys["sync"] = {"archive": "changes"}
        for number in range(20):
            it.write(f"d{number % 4}/f{number}", f"content {number}")
        (it.workspace / "big").write_bytes(os.urandom(300_000))
        yield it


def uploads(rig: Rig) -> list[int]:
    """Return the bytes of each complete upload."""
    # The emulator may hear of an upload that was broken off after it has answered the next one.
    entries = rig.emulator.request_log.entries()
    return [entry.bytes_in for entry in entries if entry.op == "upload" and entry.status == 200]


def sent(rig: Rig) -> int:
    """Return the bytes of the last upload."""
    return uploads(rig)[-1]


def equal(rig: Rig) -> bool:
    """True if the sandbox holds all of the workspace unchanged."""
    here = {
        str(path.relative_to(rig.workspace)): path.read_bytes() if path.is_file() else b""
        for path in rig.workspace.rglob("*")
    }
    top = rig.sandbox.workspace
    return all((top / path).exists() and (not text or (top / path).read_bytes() == text) for path, text in here.items())


def test_only_changes_are_sent(rig: Rig) -> None:
    """The first archive is full, later ones are as small as the change, and one dump proved it."""
    rig.sync()
    assert sent(rig) > 300_000
    rig.write("d1/f1", "changed")
    rig.write("new/dir/f", "new")
    outcome, _ = rig.sync()
    assert sent(rig) < 1_000
    assert equal(rig)
    assert outcome.sync is not None
    assert outcome.files == 22
    assert rig.asked().count("dump") == 1
    for number in range(3):
        rig.write("d1/f1", f"again {number}")
        rig.sync()
        assert sent(rig) < 1_000
    assert rig.asked().count("dump") == 1
    outcome, _ = rig.sync()
    assert outcome.sync is None


def test_it_goes_on_after_a_restart(rig: Rig) -> None:
    """The next process knows what the sandbox holds, and that partial archives work there."""
    rig.sync()
    rig.write("d1/f1", "changed")
    rig.sync()
    rig.restart()
    rig.write("d1/f1", "changed again")
    rig.sync()
    assert sent(rig) < 1_000
    assert rig.asked().count("dump") == 1
    assert equal(rig)


def test_links_modes_and_deletions(rig: Rig) -> None:
    """Each kind of change; if files were only deleted, the archive still holds something."""
    rig.sync()
    (rig.workspace / "ln").symlink_to("d1/f1")
    (rig.workspace / "d2" / "f2").chmod(0o755)
    (rig.workspace / "empty").mkdir()
    rig.sync()
    assert (rig.sandbox.workspace / "ln").readlink() == Path("d1/f1")
    assert (rig.sandbox.workspace / "d2" / "f2").stat().st_mode & 0o100
    assert (rig.sandbox.workspace / "empty").is_dir()
    (rig.workspace / "d3" / "f3").unlink()
    rig.sync()
    assert sent(rig) < 1_000
    assert equal(rig)


def test_mirrored_deletions(rig: Rig) -> None:
    """They are made before a partial archive as before a whole one."""
    rig.keys["sandbox"]["deletions"] = "mirror"
    rig.emulator.faults.on("execution-logs", "before", lambda _: rig.sandbox.wait())
    rig.sync()
    (rig.workspace / "d3" / "f3").unlink()
    rig.sync()
    assert not (rig.sandbox.workspace / "d3" / "f3").exists()
    assert sent(rig) < 1_000
    assert equal(rig)


def test_a_reset_is_followed_by_a_full_archive(rig: Rig) -> None:
    """The sandbox is empty then."""
    rig.keys["sandbox"]["deletions"] = "reset"
    rig.sync()
    (rig.workspace / "d3" / "f3").unlink()
    rig.sync()
    assert sent(rig) > 300_000
    assert equal(rig)


@pytest.mark.parametrize("fault", ["initialize: lost", "initialize: 500", "upload: 503"])
def test_a_full_archive_follows_a_failed_sync(rig: Rig, fault: str) -> None:
    """It is not known what the sandbox holds then."""
    rig.sync()
    rig.write("d1/f1", "changed")
    rig.emulator.faults.script(fault)
    with pytest.raises(KeyboardInterrupt):
        rig.sync(observer=RecordingObserver(rig.clock, ends=KeyboardInterrupt()))
    rig.write("d1/f1", "content 1")
    rig.write("d2/f2", "changed")
    rig.sync()
    assert equal(rig)
    assert sent(rig) > 300_000


@pytest.mark.parametrize("fault", ["initialize: lost", "upload: 503", "upload: expired", "initialize: 400"])
def test_a_temporary_fault_is_retried(rig: Rig, fault: str) -> None:
    """As with a whole archive."""
    rig.sync()
    rig.emulator.faults.script(fault)
    rig.write("d1/f1", "changed")
    rig.sync()
    assert equal(rig)


def test_a_forced_push_is_whole(rig: Rig) -> None:
    """It repairs any difference."""
    rig.sync()
    rig.write("d1/f1", "changed")
    rig.sync(SyncMode.FORCED)
    assert sent(rig) > 300_000


def test_a_sandbox_that_is_replaced_gets_full_archives(rig: Rig) -> None:
    """If initialize removes what is not in the archive, partial ones are not used any more, with a warning."""
    rig.sync()
    _empty_itself(rig)
    rig.write("d1/f1", "changed")
    outcome, _ = rig.sync()
    assert outcome.sync is not None
    assert outcome.sync.archive_bytes == sent(rig)
    assert outcome.change is not None
    assert len(outcome.change) == 1
    assert equal(rig)
    assert sent(rig) > 300_000
    assert [warning.key for warning in rig.cycle.warnings] == ["small-archives"]
    rig.restart()
    rig.write("d1/f1", "changed again")
    rig.sync()
    assert equal(rig)
    assert sent(rig) > 300_000
    assert rig.asked().count("dump") == 1


def _empty_itself(rig: Rig) -> None:
    """Empty the sandbox before each initialize from now on."""

    def emptied(_: object) -> None:
        for path in sorted(rig.sandbox.workspace.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()

    rig.emulator.faults.on("initialize", "before", emptied)


def test_without_a_dump_whole_ones_follow(rig: Rig) -> None:
    """A whole archive follows at once. After a while the dump is requested again."""
    rig.sync()
    _empty_itself(rig)
    rig.emulator.faults.script("dump: 404")
    for content in ("changed", "again"):
        rig.write("d1/f1", content)
        rig.sync()
        assert sent(rig) > 300_000
        assert equal(rig)
    assert rig.cycle.warnings == []
    rig.clock.go_on(900)
    rig.write("d1/f1", "and again")
    rig.sync()
    small, whole = uploads(rig)[-2:]
    assert small < 1_000 < whole
    assert rig.asked().count("dump") == 2
    assert equal(rig)


@pytest.mark.parametrize(
    "fault", ["dump: 503 always", "dump: close always", "download: cut always", "dump: 429 retry-after=60"]
)
def test_a_proof_is_not_retried(rig: Rig, fault: str) -> None:
    """A failed dump is not retried during a sync: a whole archive follows at once."""
    rig.sync()
    _empty_itself(rig)
    rig.emulator.faults.script(fault)
    rig.write("d1/f1", "changed")
    _, observer = rig.sync()
    assert observer.waits == []
    assert rig.asked().count("dump") == 1
    assert equal(rig)
    rig.emulator.faults.clear()
    rig.write("d1/f1", "again")
    rig.sync()
    assert rig.asked().count("dump") == 1


def test_a_slow_proof_is_given_up(rig: Rig) -> None:
    """A dump that takes longer than its size explains is given up, and a whole archive follows."""
    rig.sync()
    rig.write("d1/f1", "changed")
    waits = [100.0]
    rig.meanwhile = lambda: rig.clock.go_on(waits.pop() if waits and rig.asked()[-1] == "download" else 0)
    rig.sync()
    small, whole = uploads(rig)[-2:]
    assert small < 1_000 < whole
    assert rig.asked().count("dump") == 1
    rig.meanwhile = lambda: None
    rig.write("d1/f1", "changed again")
    rig.sync()
    assert sent(rig) > 300_000  # it is not asked again at once
    assert rig.asked().count("dump") == 1
    assert rig.cycle.warnings == []


class NewerError(Exception):
    """The exception of an observer that gives way to something newer."""


@pytest.mark.parametrize("ended", [Stop(), Superseded(), OSError(errno.EIO, "no"), NewerError()], ids=repr)
@pytest.mark.parametrize("anew", [True, False], ids=["another process", "the same process"])
def test_an_interrupted_proof(rig: Rig, ended: BaseException, anew: bool) -> None:
    """The sandbox may hold only the partial archive: it is uncertain, and gets everything next."""
    rig.sync()
    rig.emulator.faults.script("initialize: replace always")
    rig.write("d1/f1", "changed")

    def end() -> None:
        if rig.asked()[-1] == "download":
            raise ended

    rig.meanwhile = end
    with pytest.raises(type(ended)):
        rig.sync()
    assert sent(rig) < 1_000
    assert not equal(rig)
    rig.meanwhile = lambda: None
    if anew:
        rig.restart()
    rig.sync()
    assert equal(rig)
    assert sent(rig) > 300_000
    if not anew:  # it was given up just now: each one that is costs a whole archive
        rig.write("d1/f1", "changed again")
        rig.sync()
        assert rig.asked().count("dump") == 1
        assert equal(rig)


@pytest.mark.parametrize("fault", ["initialize: replace always", "list: 503"], ids=["replaces", "keeps the rest"])
def test_a_proof_that_cannot_be_recorded(rig: Rig, fault: str) -> None:
    """This process goes on, and the next one sends everything."""
    rig.sync()
    rig.emulator.faults.script(fault)
    (state,) = [path.parent for path in (rig.folder / "state").rglob("initialized")]
    rig.write("d1/f1", "changed")

    def close(_: object) -> None:
        state.rename(state.with_name("elsewhere"))

    rig.emulator.faults.on("dump", "before", close)
    rig.sync()
    assert equal(rig)
    assert "state:write" in [warning.key for warning in rig.cycle.warnings]
    state.with_name("elsewhere").rename(state)
    rig.restart()
    rig.sync()
    assert equal(rig)
    assert sent(rig) > 300_000


def test_an_archive_that_lacks_nothing_proves_nothing(rig: Rig) -> None:
    """While the workspace holds only the changes and their folders, archives are whole."""
    shutil.rmtree(rig.workspace)
    rig.write("d/e/f", "content")
    rig.sync()
    _empty_itself(rig)
    rig.write("d/e/f", "changed")
    rig.sync()
    assert "dump" not in rig.asked()
    for path in ("g", "h"):
        rig.write(path)
        rig.sync()
        assert equal(rig)
    assert rig.asked().count("dump") == 1


class TruncatingObserver(RecordingObserver):
    """Damages the chunks of a partial archive just before they are sent."""

    folder = Path()

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        for chunk in self.folder.glob("cache/syncd/*/changes/**/*.chunk"):
            os.truncate(chunk, 0)
        super().sent(sent_bytes, total_bytes)


def test_an_archive_made_again_proves_nothing(rig: Rig) -> None:
    """A partial archive that was damaged is sent as a whole one; if partial ones work there stays open."""
    rig.sync()
    _empty_itself(rig)
    rig.write("d1/f1", "changed" * 100)
    observer = TruncatingObserver(rig.clock)
    observer.folder = rig.folder
    rig.sync(observer=observer)
    assert sent(rig) > 300_000
    assert "dump" not in rig.asked()
    rig.write("d1/f1", "again")
    rig.sync()
    assert equal(rig)
    assert rig.asked().count("dump") == 1


def test_names_that_are_not_utf8(rig: Rig) -> None:
    """They are reported and recorded as any other."""
    (rig.workspace / os.fsdecode(b"A-\xff")).write_text("first of all that is missing")
    rig.sync()
    _empty_itself(rig)
    rig.write("d1/f1", "changed")
    rig.sync()
    rig.restart()
    assert "xff')" in str(rig.cycle.warnings[0])


def test_the_spool_holds_one_whole_and_one_partial_archive(rig: Rig) -> None:
    """The next archive, a partial one too, removes what an interrupted packing left; a whole one removes that."""
    rig.sync()
    rig.write("d1/f1", "changed")
    rig.restart()
    (chunks,) = [path for path in (rig.folder / "cache").rglob("chunks") if path.parent.name != "changes"]
    stray = chunks / f"{'0' * 64}.chunk"
    stray.write_bytes(b"of a process that died")
    rig.sync()
    assert sent(rig) < 1_000
    assert not stray.exists()
    small = chunks.parent / "changes/chunks"
    assert any(small.iterdir())
    rig.sync(SyncMode.FORCED)
    assert sent(rig) > 300_000
    assert not any(small.iterdir())


def test_a_draft_of_a_killed_process_is_removed(rig: Rig) -> None:
    """A partial record of any name is of no use to the next process."""
    rig.sync()
    (record,) = (rig.folder / "state").rglob("initialized")
    draft = record.parent / "lingering.new"
    draft.write_text("half")
    rig.restart()
    rig.sync()
    assert not draft.exists()
    assert record.exists()
