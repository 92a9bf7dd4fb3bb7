"""What a removal in a sandbox leaves over, and what of that is in the way there."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from syncd.core.choices import Deletions
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.remote.api import Api
from syncd.remote.target import Target
from syncd.sandbox.deletions import DeletionSync
from syncd.sandbox.look import Looker
from syncd.sandbox.look_request import LookResult, Obstacle
from syncd.sandbox.sandbox_state import SandboxState
from syncd.store.state_db import StateDb

FILE = Entry(Kind.FILE, 0, 0, 5, digest=b"d")
FOLDER = Entry(Kind.DIRECTORY, 0, 0)
THEIRS = SeenEntry(Kind.FILE)


def deletion_sync(folder: Path, base: Manifest) -> DeletionSync:
    """Return the deletions in a sandbox that holds the base."""
    state = SandboxState(StateDb(str(folder)), Target("https://api.example.com", "box", "us"))
    state.base = base
    return DeletionSync(Deletions.MIRROR, state, cast(Api, None), cast(Looker, None))


def test_a_changed_path_in_the_way_is_tried_again(tmp_path: Path) -> None:
    """A changed path that has a wanted one's place is tried again, or it would have it for ever."""
    process = deletion_sync(tmp_path, Manifest({"a": FILE}))
    process.removed([LookResult({"a": THEIRS})], process.paths_to_delete(Manifest(), ()), Manifest())
    process.note_arrived(Manifest(), ())
    process.state.note_arrived(Manifest())
    assert process.paths_to_delete(Manifest(), ()) == {}
    assert process.paths_to_delete(Manifest({"a": FOLDER}), ()) == {"a": [FILE]}


def test_the_later_of_two_looks_counts(tmp_path: Path) -> None:
    """What the first one only found there, the second one may have removed; what is missing there is removed."""
    process = deletion_sync(tmp_path, Manifest({"a": FILE, "b": FILE, "c": FILE}))
    looks = [LookResult({"a": THEIRS, "b": THEIRS, "c": ABSENT}), LookResult({}, removed=["a"])]
    process.removed(looks, process.paths_to_delete(Manifest(), ()), Manifest())
    process.note_arrived(Manifest(), ())
    assert list(process.state.leftovers.entries) == ["b"]


def test_what_still_has_a_place(tmp_path: Path) -> None:
    """It is what is there now, and where nobody can tell, what was put there."""
    gone = Manifest({"d": FOLDER, "f": FILE, "g": FILE, "h": FILE, "i": FOLDER})
    wanted = Manifest({"d": FILE, "f": FOLDER, "g": FOLDER, "h": FOLDER, "i": FILE})
    process = deletion_sync(tmp_path, gone)
    looked = LookResult(
        {"f": THEIRS, "g": SeenEntry(Kind.UNREAD), "i": THEIRS}, kept=["d"], failed={"h": "Permission denied"}
    )
    taken = process.removed([looked], process.paths_to_delete(wanted, ()), wanted)
    assert taken == {"d": Obstacle.DIRECTORY, "f": Obstacle.FILE, "g": Obstacle.FILE, "h": Obstacle.FILE}
