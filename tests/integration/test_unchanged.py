"""What counts as a change, from real files to requests: a touch costs nothing, no edit is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import TryLater
from syncd.model.directory import Entries
from syncd.model.entry import Entry
from tests.clock import LATER_S
from tests.integration.sync_rig import DamagingObserver, RecordingObserver, Rig, files
from tests.system.rig import emptied


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A workspace that is in the sandbox, with old files."""
    bare.clock.wall = LATER_S
    bare.send({"a.txt": "hello", "d/b.txt": "world"})
    return bare


def _edit_behind_the_mtime(file: Path) -> None:
    before = file.stat()
    file.write_text("HELLO")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _swap_two(file: Path) -> None:
    other, between = file.with_name("d") / "b.txt", file.with_name("x")
    file.rename(between)
    other.rename(file)
    between.rename(other)


CHANGES: dict[str, Callable[[Path], object]] = {
    "edit": lambda file: file.write_text("HELLO"),
    "edit behind the mtime": _edit_behind_the_mtime,
    "swap two": _swap_two,
    "rename": lambda file: file.rename(file.with_name("A.txt")),
    "mode": lambda file: file.chmod(0o755),
    "remove": Path.unlink,
    "empty folder": lambda file: file.with_name("empty").mkdir(),
    "link": lambda file: file.with_name("link").symlink_to("a.txt"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_change(rig: Rig, change: Callable[[Path], object], *, restarted: bool) -> None:
    """Each kind of change is found once, by this process and by the next one, whatever the times are."""
    change(rig.workspace / "a.txt")
    if restarted:
        rig.restart()
    assert rig.sync()[0].word == "initialized"
    assert rig.sync()[0].word == "unchanged"
    assert rig.uploads == 2
    assert files(rig.workspace).items() <= rig.arrived().items()


def test_a_lost_state_costs_one_upload(rig: Rig) -> None:
    """Without its records the daemon uploads once more, warns, and goes on."""
    rig.restart()
    (file,) = rig.folder.glob("state/syncd/*/state.db")
    file.write_bytes(b"something else")
    assert list(rig.warnings) == ["state"]
    rig.sync()
    assert rig.uploads == 2
    assert rig.cycle.warnings == []


def test_a_sync_that_cannot_be_recorded(rig: Rig) -> None:
    """It gives a warning, and costs an upload after a restart; the sync itself is done."""
    folder = rig.state_folder
    elsewhere = folder.with_name("elsewhere")
    rig.write("a.txt", "new")
    moves = [elsewhere]
    rig.emulator.faults.on("initialize", "after", lambda _: folder.rename(moves.pop()) if moves else None)
    assert rig.sync()[0].word == "initialized"
    assert list(rig.warnings) == ["state:write"]
    assert rig.sync()[0].word == "unchanged"
    elsewhere.rename(folder)
    rig.send({"a.txt": "newer"})
    assert rig.cycle.warnings == []


def test_a_disk_that_damages_the_spool_again_and_again(rig: Rig) -> None:
    """No damaged piece is sent, and the sync ends; the next one goes on."""
    rig.write("a.txt", "new")
    with pytest.raises(TryLater, match="spool"):
        rig.sync(observer=DamagingObserver(rig.clock, folder=rig.folder, times=50))
    assert rig.arrived() == {"a.txt": "hello", "d/b.txt": "world"}
    rig.sync()
    assert rig.arrived() == {"a.txt": "new", "d/b.txt": "world"}


# -- a sandbox that was emptied, while nothing changed here


@pytest.fixture
def asked(rig: Rig) -> Rig:
    """With the defaults; this process has synced something."""
    rig.use_defaults()
    rig.send({"a.txt": "again"})
    return rig


def test_a_request_waits_for_an_answer(asked: Rig) -> None:
    """What cannot be asked now is asked again; it does not count as there before."""
    asked.emulator.faults.script("execution-upload-url: 503 x3", "dump: 503 x3", "get: 503 x3")
    outcome, observer = asked.sync(SyncMode.ASKED)
    assert (outcome.word, asked.cycle.warnings) == ("unchanged", [])
    assert observer.waits
    assert "execute" in asked.asked()


def test_without_a_request_nothing_waits(asked: Rig) -> None:
    """A first sync in an outage is no failure, and the next one asks."""
    asked.restart()
    asked.emulator.faults.script("any: 503 always")
    assert asked.sync()[0].word == "unchanged"
    asked.emulator.faults.clear()
    emptied(asked.sandbox.workspace)
    assert asked.sync()[0].word == "initialized"


@pytest.mark.parametrize("by", ["a request", "a look that follows", "a sync of something"])
def test_all_that_fills_it_again_is_told_of(asked: Rig, by: str) -> None:
    """Whoever notices that it was emptied, `sync.on_synced` is told of all that was put there again."""
    emptied(asked.sandbox.workspace)
    if by == "a look that follows":
        assert asked.cycle.sandbox is not None
        asked.cycle.sandbox.note_emptied()
    elif by == "a sync of something":
        asked.edit(new="new")
    outcome, _ = asked.sync(SyncMode.ASKED)
    assert outcome.arrived is not None
    assert (set(outcome.arrived.added), outcome.change) == (asked.cycle.content.base.keys(), None)


@pytest.mark.parametrize(("policy", "key"), [("save", "remote-changes"), ("overwrite", "unknown")])
def test_where_nobody_can_look_it_says_so(asked: Rig, policy: str, key: str) -> None:
    """A request ends well, with a warning, until someone can look."""
    asked.set(agent_changes=policy)
    asked.emulator.faults.script("execute: 501 always", "dump: 501 always")
    assert asked.sync(SyncMode.ASKED)[0].word == "unchanged"
    assert list(asked.warnings) == [key]
    asked.emulator.faults.clear()
    asked.clock.go_on(900)
    assert asked.sync(SyncMode.ASKED)[0].word == "unchanged"
    assert asked.warnings == {}


@pytest.mark.parametrize("knows", ["nothing yet", "that nobody could look"])
def test_a_part_tells_nothing_of_the_rest(asked: Rig, knows: str) -> None:
    """Where no sync looks, what was changed arrives in an emptied sandbox as in a full one."""
    asked.send({f"f{number}": "text" for number in range(30)})
    asked.set(agent_changes="overwrite")
    if knows == "that nobody could look":
        asked.emulator.faults.script("execute: 501 x9", "dump: 501 x9")
        asked.sync(SyncMode.ASKED)
        asked.end_faults()
    emptied(asked.sandbox.workspace)
    asked.send({"a.txt": "new"})
    assert knows == "nothing yet" or list(asked.warnings) == ["unknown"]
    assert asked.sync(SyncMode.CHANGED if knows == "nothing yet" else SyncMode.ASKED)[0].word == "initialized"
    assert (asked.is_as_home(), asked.warnings) == (True, {})


# -- the cost of a change


@pytest.mark.parametrize("agent_changes", ["save", "overwrite"])
def test_an_edit_reads_few_directories(bare: Rig, agent_changes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hundreds of directories, a sync of one file decodes some, whatever it compares and records."""
    read: list[Entries] = []
    decoded = Entries.decoded

    def counted(self: Entries) -> dict[str, Entry]:
        read.append(self)
        return decoded(self)

    bare.use_defaults()
    bare.set(agent_changes=agent_changes)
    for number in range(400):
        bare.write(f"d{number}/f", str(number))  # no two directories are equal
    bare.sync()
    for text in ("x", "y"):
        bare.write("d7/f", text)
        monkeypatch.setattr(Entries, "decoded", counted)
        read.clear()
        outcome, _ = bare.sync(observer=RecordingObserver(bare.clock, only={"d7"}))
        monkeypatch.undo()
        assert outcome.word == "initialized"
    assert bare.arrived()["d7/f"] == "y"
    assert len(read) <= 20, f"{len(read)} of {400} directories were read"
