"""Archives of only the changes: small, sufficient, and used only after the sandbox has proved that they work."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from typing import Any

import pytest

from syncd.archive.chunk_store import Archive, DamagedPiece
from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import Stop
from syncd.core.waiter import Superseded
from syncd.model.entry import Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.sync.agent_work import FoundWork
from syncd.sync.delivery import Delivery
from syncd.sync.following import FollowedStore
from syncd.sync.proof import ProofRound
from syncd.sync.sync_plan import Verdict
from tests.integration.sync_rig import DamagingObserver, RecordingObserver, Rig
from tests.system.trees import tree


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """Nothing is in the sandbox yet, and a sync looks only for the proof."""
    bare.keys["sync"]["archive"] = "auto"
    bare.wait_for_programs()
    for number in range(20):
        bare.write(f"d{number % 4}/f{number}", f"content {number}")
    (bare.workspace / "big").write_bytes(os.urandom(300_000))
    return bare


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
    return tree(rig.workspace).items() <= tree(rig.sandbox.workspace).items()


def edited(rig: Rig, content: str) -> int:
    """Sync an edit, which arrives, and return the bytes of the upload."""
    rig.send({"d1/f1": content})
    assert equal(rig)
    return sent(rig)


@pytest.mark.parametrize("fails", [0, 4])
def test_the_proof_goes_by_the_look_before_it(rig: Rig, fails: int) -> None:
    """It costs one look, which counts. Where its initialize fails it is tried again, and nobody looks for a reason."""
    rig.set(agent_changes="save")
    if fails:
        rig.emulator.faults.script(f"initialize: 500 skip=1 x{fails}")
    rig.sync()
    assert rig.asked().count("initialize") == 2 + fails
    assert fails or rig.asked().count("execute") == 2
    assert edited(rig, "changed") < 1_000


def test_only_changes_are_sent(rig: Rig) -> None:
    """The first archive is whole; the proof follows at once, by one path and one look; later ones are small."""
    outcome, _ = rig.sync()
    whole, proof = uploads(rig)
    assert proof < 1_000 < 300_000 < whole
    assert (rig.asked().count("execute"), rig.asked().count("initialize")) == (1, 2)
    assert (outcome.sync.archive_bytes, outcome.files) == (whole, 21)
    outcome = rig.send({"d1/f1": "changed", "new/dir/f": "new"})
    assert sent(rig) < 1_000
    assert equal(rig)
    assert outcome.sync is not None
    assert outcome.files == 22
    for number in range(3):
        assert edited(rig, f"again {number}") < 1_000
    assert rig.asked().count("execute") == 1
    assert "dump" not in rig.asked()
    outcome, _ = rig.sync()
    assert outcome.sync is None


@pytest.mark.parametrize(
    ("fault", "is_full"), [("initialize: lost", True), ("initialize: 500", True), ("upload: 503", False)]
)
def test_a_full_archive_follows_a_failed_initialize(rig: Rig, fault: str, *, is_full: bool) -> None:
    """It is not known what the sandbox holds then; after a step before it, it is known."""
    rig.sync()
    rig.write("d1/f1", "changed")
    rig.emulator.faults.script(fault)
    with pytest.raises(KeyboardInterrupt):
        rig.sync(observer=RecordingObserver(rig.clock, ends=KeyboardInterrupt()))
    rig.send({"d1/f1": "content 1", "d2/f2": "changed"})
    assert equal(rig)
    assert (sent(rig) > 300_000) is is_full


def test_a_look_follows_an_outage(rig: Rig) -> None:
    """In an outage an attempt costs one request soon; and then the sandbox is looked at, as before."""
    rig.set(agent_changes="save")
    rig.sync()
    rig.write("d1/f1", "changed")
    (rig.sandbox.workspace / "d1" / "f1").write_text("the agent's")
    for op in ("upload-url", "execution-upload-url", "dump", "initialize"):
        rig.emulator.faults.script(f"{op}: 503 always")
    before, waits = len(rig.asked()), 0
    observer = RecordingObserver(rig.clock)
    go_on = rig.clock.go_on

    def pass_time(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 4:
            rig.emulator.faults.clear()
        go_on(seconds)

    rig.clock.go_on = pass_time  # type: ignore[method-assign]
    outcome, _ = rig.sync(observer=observer)
    asked = rig.asked()[before:]
    assert asked[-9:-7] == ["upload-url", "upload-url"]
    assert len(outcome.saved) == 1
    assert equal(rig)


REPLACES = "initialize: replace always"
NOBODY = "execute: 501 always", "dump: 501 always"


def reason(caplog: pytest.LogCaptureFixture) -> str:
    """Return why the archive that was packed since the last question is a whole one, as the log says."""
    (packing,) = [message for message in caplog.messages if message.startswith("packing ")]
    caplog.clear()
    return packing.partition("; all is sent, as ")[2]


def test_the_log_says_why_all_is_sent(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever wonders why an edit sent everything finds the reason, which is that of this archive."""
    caplog.set_level(logging.INFO, "syncd.sync")
    rig.sync()
    assert reason(caplog) == "nothing is known to be there"
    edited(rig, "changed")
    assert reason(caplog) == ""
    rig.sync(SyncMode.FORCED)
    assert reason(caplog) == "was asked for"
    rig.emulator.faults.script("initialize: lost")
    rig.write("d1/f1", "changed again")
    with pytest.raises(KeyboardInterrupt):
        rig.sync(observer=RecordingObserver(rig.clock, ends=KeyboardInterrupt()))
    assert reason(caplog) == ""
    rig.sync()
    assert reason(caplog) == "it is not certain what is there"
    rig.set("sync", archive="full")
    edited(rig, "changed once more")
    assert reason(caplog) == "`sync.archive` says"
    rig.set("sync", archive="auto")
    (rig.workspace / "big").unlink()
    for number in range(20):
        (rig.workspace / f"d{number % 4}/f{number}").unlink(missing_ok=True)
    rig.send({f"d{number}/new": "new" for number in range(4)})
    assert reason(caplog) == "no smaller archive would do"


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        ([REPLACES], "the sandbox removes what an archive lacks"),
        ([*NOBODY], "it is not known yet if the sandbox keeps what an archive lacks"),
    ],
)
def test_the_log_says_what_a_sandbox_does(
    rig: Rig, caplog: pytest.LogCaptureFixture, faults: list[str], why: str
) -> None:
    """Where the sandbox has not proved that it keeps the rest, an edit sends all, and the log says so."""
    caplog.set_level(logging.INFO, "syncd.sync")
    rig.emulator.faults.script(*faults)
    rig.sync()
    caplog.clear()
    edited(rig, "changed")
    assert reason(caplog) == why


def test_a_sandbox_that_replaces_gets_whole_archives(rig: Rig) -> None:
    """If initialize removes what is not in the archive, partial ones are not used, with a warning."""
    rig.emulator.faults.script(REPLACES)
    outcome, _ = rig.sync()
    first, proof, again = uploads(rig)
    assert proof < 1_000 < 300_000 < min(first, again)
    assert outcome.sync.archive_bytes == again
    assert equal(rig)
    for content in ("changed", "changed again"):
        assert list(rig.warnings) == ["small-archives"]
        assert edited(rig, content) > 300_000
        rig.restart()
    assert rig.asked().count("execute") == 1


def test_a_sandbox_that_replaces_keeps_nothing_that_was_followed(rig: Rig) -> None:
    """Each archive goes over all that was there, and what following kept of it is kept no more: it is saved."""
    rig.set(agent_changes="save")
    rig.emulator.faults.script(REPLACES)
    rig.sync()
    rig.agent.write("theirs", "only there")
    state = rig.cycle.sync.state
    store = FollowedStore(state.db, state.target)
    store.save(FoundWork(0.0, {"theirs": SeenEntry(Kind.FILE, 0o644, 1, 10, digest=b"t" * 32)}), 0.0)
    rig.send({"d1/f1": "changed"})
    assert rig.saved == {"theirs": ["only there"]}
    assert not store.load().there


def test_a_sandbox_that_replaces_from_some_day_on(rig: Rig) -> None:
    """The proof does not count any more: after the first such archive everything is there, or saved."""
    rig.use_defaults()
    rig.sync()
    assert edited(rig, "changed") < 1_000
    rig.emulator.faults.script(REPLACES)
    for number in range(4):
        (rig.sandbox.workspace / f"agent-{number}").write_text("the agent's")
        rig.send({"d1/f1": f"changed again {number}"})
        assert equal(rig) is (number > 0)
    assert rig.saved.keys() == {f"agent-{number}" for number in range(1, 4)}
    assert list(rig.warnings) == ["small-archives"]


def test_by_a_dump_where_no_program_runs(rig: Rig) -> None:
    """It proves as much, either way."""
    rig.emulator.faults.script("execute: 501 always")
    rig.sync()
    assert rig.asked().count("dump") == 1
    assert edited(rig, "changed") < 1_000
    assert rig.asked().count("dump") == 1
    assert equal(rig)


def test_where_nobody_can_look_whole_ones_follow(rig: Rig) -> None:
    """A whole archive follows the proof's at once. After a while it is tried again."""
    rig.emulator.faults.script(*NOBODY, REPLACES)
    rig.sync()
    assert sent(rig) > 300_000
    assert equal(rig)
    uploaded = len(uploads(rig))
    for content in ("changed", "again"):
        assert edited(rig, content) > 300_000
    assert len(uploads(rig)) == uploaded + 2
    assert rig.cycle.warnings == []
    assert rig.asked().count("execute") == rig.asked().count("dump") == 1
    rig.clock.go_on(900)
    rig.send({"d1/f1": "and again"})
    first, small, whole = uploads(rig)[-3:]
    assert small < 1_000 < min(first, whole)
    assert rig.asked().count("execute") == rig.asked().count("dump") == 2
    assert equal(rig)


class SlowSandbox:
    """A sandbox in which an initialize takes three seconds, and so does each look after the first one's."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        rig.keys["sandbox"]["agent_changes"] = "save"
        rig.emulator.faults.on("initialize", "after", lambda _: rig.clock.go_on(3.0))
        rig.emulator.faults.on("execution-logs", "after", lambda _: self._look())

    def _look(self) -> None:
        if "initialize" in self.rig.asked():
            self.rig.clock.go_on(3.0)


def test_what_the_agent_wrote_before_the_proof_is_saved(rig: Rig) -> None:
    """The sandbox may remove it with what the archive of the proof lacks."""
    rig.emulator.faults.script(REPLACES)
    SlowSandbox(rig)
    agents = {"d1/f1": "the agent's", "big": "smaller", "new": "the agent's, too"}

    def write(_: object) -> None:
        if rig.asked().count("initialize") == 1:
            for path, content in agents.items():
                (rig.sandbox.workspace / path).write_text(content)

    rig.emulator.faults.on("initialize", "after", write)
    outcome, _ = rig.sync()
    assert rig.asked().count("initialize") == 3
    assert equal(rig)
    assert rig.saved == {path: [content] for path, content in agents.items()}
    assert len(outcome.saved) == 3


class NewerError(Exception):
    """The exception of an observer that gives way to something newer."""


@pytest.mark.parametrize("ended", [Stop(), Superseded(), OSError(errno.EIO, "no"), NewerError()], ids=repr)
@pytest.mark.parametrize("anew", [True, False], ids=["another process", "the same process"])
@pytest.mark.parametrize("during", ["initialize", "execution-logs"])
def test_an_interrupted_proof(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, ended: BaseException, during: str, *, anew: bool
) -> None:
    """The sandbox may hold only the partial archive: it is uncertain, and gets everything next."""
    rig.emulator.faults.script(REPLACES)
    exchange = rig.client.exchange

    def ends(*args: Any, **options: Any) -> Any:
        answer = exchange(*args, **options)
        if len(uploads(rig)) == 2 and rig.asked()[-1] == during:
            raise ended
        return answer

    monkeypatch.setattr(rig.client, "exchange", ends)
    with pytest.raises(type(ended)):
        rig.sync()
    monkeypatch.undo()
    assert sent(rig) < 1_000
    assert not equal(rig)
    if anew:
        rig.restart()
    rig.sync()
    assert equal(rig)
    assert sent(rig) > 300_000


@pytest.mark.parametrize("ends", [None, Superseded()], ids=["it fails", "it gives way"])
def test_a_proof_that_cannot_be_sent(rig: Rig, ends: BaseException | None) -> None:
    """What arrived before counts as synced, and is told of; the proof is made after the next archive."""
    rig.emulator.faults.script("upload: 503 skip=1 always")
    outcome, _ = rig.sync(observer=RecordingObserver(rig.clock, ends=ends))
    assert (outcome.word, outcome.arrived is not None) == ("initialized", True)
    rig.end_faults()
    assert rig.sync()[0].word == "unchanged"
    rig.edit(new="new")
    rig.sync()
    assert edited(rig, "changed") < 1_000


@pytest.mark.parametrize("is_damaged", [True, False], ids=["damaged", "outdated"])
def test_a_proof_that_may_have_arrived(rig: Rig, monkeypatch: pytest.MonkeyPatch, *, is_damaged: bool) -> None:
    """Its initialize was not answered, and it is given up at the next try: everything is sent again at once."""
    rig.emulator.faults.script(REPLACES)
    deliver = Delivery.deliver

    def unanswered(self: Delivery, archive: Archive, entries: Manifest, preparation: Any, observer: Any) -> Any:
        found = deliver(self, archive, entries, preparation, observer)
        if not isinstance(preparation, ProofRound):
            return found
        monkeypatch.undo()
        if is_damaged:
            raise DamagedPiece(archive.pieces[0])
        return Verdict.PACK_AGAIN

    monkeypatch.setattr(Delivery, "deliver", unanswered)
    rig.sync()
    assert equal(rig)
    assert sent(rig) > 300_000


def test_the_path_of_a_proof_gets_a_secret(bare: Rig) -> None:
    """It is not sent once more, and the proof is made after another archive."""
    bare.keys["sync"]["archive"] = "auto"
    bare.wait_for_programs()
    bare.write("a", "smallest")
    bare.write("b", "a larger one")
    token = "ghp_" + "Ab1cD2ef3G" * 3 + "Hj4kM5"
    bare.emulator.faults.on("initialize", "after", lambda _: bare.write("a", f"token = {token}\n"))
    bare.sync()
    assert len(uploads(bare)) == 1


def test_an_archive_that_is_damaged_is_sent_whole(rig: Rig) -> None:
    """A partial archive whose chunks are lost in the spool becomes a whole one."""
    rig.sync()
    rig.write("d1/f1", "changed" * 100)
    rig.sync(observer=DamagingObserver(rig.clock, folder=rig.folder, chunks="changes/**/*.chunk"))
    assert sent(rig) > 300_000
    assert equal(rig)
    assert edited(rig, "again") < 1_000


def test_a_damaged_archive_of_a_removal_is_made_again(rig: Rig) -> None:
    """What is removed once more after the whole one is sent with the same path, whose chunk is made anew."""
    rig.use_defaults()
    rig.settle()
    rig.delete("d1/f1")
    outcome, _ = rig.sync(observer=DamagingObserver(rig.clock, folder=rig.folder, chunks="changes/**/*.chunk"))
    assert outcome.word == "initialized"
    assert equal(rig)


def test_a_directory_that_the_agent_replaced_is_no_sandbox_that_was_emptied(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """All in it is put there again, and nobody takes the sandbox for a new one: it is set up, say."""
    rig.use_defaults()
    rig.settle()
    shutil.rmtree(rig.sandbox.workspace / "d1")
    rig.agent.write("d1", "theirs")
    outcome = rig.send({"d1/f1": "ours, edited"})
    assert equal(rig)
    assert rig.saved == {"d1": ["theirs"]}
    assert [*outcome.change.changed] == ["d1/f1"]
    assert "everything is sent again" not in caplog.text


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
