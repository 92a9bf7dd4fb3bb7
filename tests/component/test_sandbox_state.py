"""The state of the last sync on disk: manifests, and uncertainty."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.model.entry import Entry, Kind, SeenEntry, Stamp
from syncd.model.manifest import Manifest
from syncd.model.reconcile import PathOutcome, Plan, PlannedPath
from syncd.remote.target import Target
from syncd.sandbox.look_request import Obstacle
from syncd.sandbox.sandbox_content import TakenPath
from syncd.sandbox.sandbox_state import SandboxState, ending_targets, forget_name, last_target, recorded_names
from syncd.sandbox.seen_paths import SeenPaths
from syncd.store.state_db import StateDb
from tests.component.sample_records import TARGET, arrived

MANIFEST = Manifest(
    {
        "d": Entry(Kind.DIRECTORY, 0o1755, -1),
        "d/n\udcff\nü": Entry(
            Kind.FILE,
            0o644,
            2**40,
            2**50,
            stamp=Stamp(-5, 2**62, 2**64 - 1, 2**33),
            digest=bytes(range(32)),
        ),
        "l": Entry(Kind.SYMLINK, 0o777, 0, target="t\udc80"),
    }
)
OTHER = Target(TARGET.base_url, "other", "us")


def test_any_manifest_is_restored(db: StateDb) -> None:
    """Names of any bytes, unusual times and the largest inodes survive; another sandbox has a state of its own."""
    arrived(db, MANIFEST)
    again = SandboxState(db, TARGET)
    assert again.content.base == MANIFEST
    assert list(again.content.base or {}) == list(MANIFEST)
    assert again.warnings == []
    assert last_target(db) == TARGET
    assert not SandboxState(db, OTHER).content.is_known


def test_the_next_sandbox_takes_the_place_of_the_last_one(db: StateDb) -> None:
    """What is known of the one before last goes, but not while its agent's work is still being saved."""
    third = Target(TARGET.base_url, "third", "us")
    arrived(db, MANIFEST)
    assert not SandboxState(db, TARGET).content.uncertain
    arrived(db, MANIFEST, OTHER)
    left = SandboxState(db, TARGET)
    assert (left.content.base, left.content.uncertain) == (MANIFEST, True)
    ending_targets(db).save([(TARGET, 1.0)])
    arrived(db, MANIFEST, third)
    assert SandboxState(db, TARGET).content.base == MANIFEST
    ending_targets(db).save([])
    arrived(db, MANIFEST, OTHER)
    assert last_target(db) == OTHER
    assert not SandboxState(db, TARGET).content.is_known


def test_the_last_sandbox_is_one_that_was_left_and_is_sent_the_same_again(db: StateDb) -> None:
    """Its archive was never answered, nor is the second one before the process dies."""
    SandboxState(db, TARGET).mark_uncertain(MANIFEST)
    arrived(db, MANIFEST, OTHER)
    again = SandboxState(db, TARGET)
    again.mark_uncertain(MANIFEST)
    assert (last_target(db), again.content.maybe) == (TARGET, (MANIFEST,))


def test_what_was_sent_again_is_recorded(db: StateDb) -> None:
    """An archive that has something of the base may be unpacked late, as the next process knows too."""
    state = arrived(db, MANIFEST)
    for sent, unanswered in ({"n": MANIFEST["l"]}, [{"n"}]), (MANIFEST, [MANIFEST.keys(), {"n"}]):
        state.mark_uncertain(Manifest(sent))
        for each in (state, SandboxState(db, TARGET)):
            assert [manifest.keys() for manifest in each.content.unanswered] == unanswered
    state.note_arrived(MANIFEST)
    state.record()
    assert SandboxState(db, TARGET).content.unanswered == ()


def test_a_doubt_is_the_next_process_uncertainty(db: StateDb) -> None:
    """An archive may have taken away what it lacked: this process finds out, and one after it sends the whole."""
    state = arrived(db, MANIFEST)
    state.mark_uncertain(MANIFEST)
    state.note_arrived(MANIFEST)
    state.doubt()
    state.record()
    assert (state.content.uncertain, SandboxState(db, TARGET).content.uncertain) == (False, True)
    state.end_doubt()
    assert not state.is_doubted
    assert not SandboxState(db, TARGET).content.uncertain


def test_what_arrived_but_cannot_be_recorded(db: StateDb, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is certain of it all the same, and no other one changed it."""

    def fail(_: SeenPaths) -> None:
        raise OSError

    state = arrived(db, MANIFEST)
    state.note_arrived(Manifest())
    with monkeypatch.context() as patch:
        patch.setattr(SeenPaths, "save", fail)
        with pytest.raises(OSError):
            state.record()
    assert not state.was_changed
    assert state.content.base == Manifest()
    assert SandboxState(db, TARGET).content.base == MANIFEST
    state.record()
    assert SandboxState(db, TARGET).content.base == Manifest()


def test_what_was_brought_home(db: StateDb) -> None:
    """It counts as sent while the base is as it was then; whose contents were searched is not forgotten."""
    daemon = arrived(db, MANIFEST, searched="search")
    theirs = Entry(Kind.FILE, 0o644, 5, 5, digest=b"t" * 32)
    taken = [
        TakenPath("new", None, theirs),
        TakenPath("d", theirs, None),
        TakenPath("l", MANIFEST["l"], theirs, is_excluded=True),
    ]
    SandboxState(db, TARGET).record_taken(taken)
    assert daemon.was_changed
    expected = MANIFEST | {"new": theirs}
    del expected["l"]
    daemon.read()
    assert daemon.content.base == expected
    assert not daemon.was_changed


def test_a_record_that_is_lost(db: StateDb) -> None:
    """Commands know nothing any more, so neither does this process: all is sent anew."""
    daemon = arrived(db, MANIFEST)
    db.close()
    Path(db.path).write_bytes(b"x" * 10_000)
    assert daemon.was_changed
    daemon.read()
    assert not daemon.content.is_known
    assert not daemon.was_changed


def test_each_name_has_a_last_sandbox(db: StateDb) -> None:
    """What is known of one is not forgotten when the other moves; a name that is forgotten leaves nothing."""
    for target, name in ((TARGET, "main"), (OTHER, "blue")):
        arrived(db, MANIFEST, target, name=name)
        assert not SandboxState(db, target, name=name).content.uncertain
    for sandbox in ("third", "fourth"):
        arrived(db, MANIFEST, Target(TARGET.base_url, sandbox, "us"))
    assert not SandboxState(db, TARGET).content.is_known
    assert SandboxState(db, OTHER, name="blue").content.base == MANIFEST
    assert recorded_names(db) == {"main", "blue"}
    forget_name(db, "blue")
    assert recorded_names(db) == {"main"}
    assert not SandboxState(db, OTHER, name="blue").content.is_known
    assert last_target(db, "blue") is None


def test_what_stays_there(db: StateDb) -> None:
    """A look says it of the paths that it came to, and no look of an obstacle but one at its place."""
    seen, file = SandboxState(db, TARGET).seen, MANIFEST["l"]

    def kept(path: str) -> Plan:
        return Plan((PlannedPath(path, PathOutcome.KEEP, file, file, SeenEntry(Kind.FILE, size_bytes=7)),))

    seen.note_obstacles({"d": Obstacle.READ_ONLY}, MANIFEST)
    seen.note(kept("l"), lambda _: True, here=MANIFEST, now_s=0.0)
    seen.note(kept("other"), lambda path: path == "other", here=MANIFEST, now_s=0.0)
    again = SandboxState(db, TARGET).seen
    assert (again.obstacles, again.kept, again.held) == ({"d": Obstacle.READ_ONLY}, {"l", "other"}, {"d"})
    seen.note(Plan(), lambda _: True, here=MANIFEST, now_s=0.0)
    assert (*seen.stays,) == ("d",)
    seen.note_obstacles({}, MANIFEST)
    assert not seen.stays
