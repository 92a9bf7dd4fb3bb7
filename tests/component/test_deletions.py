"""What is left over in a sandbox, and of what is in the way there."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from syncd.core.choices import Deletions
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.remote.api import Api
from syncd.remote.target import Target
from syncd.sandbox.deletions import DeletionSync, LeftoversStore
from syncd.sandbox.look import Looker
from syncd.sandbox.look_request import LookResult
from syncd.store.state_db import StateDb

FILE = Entry(Kind.FILE, 0, 0, 5, digest=b"d")
FOLDER = Entry(Kind.DIRECTORY, 0, 0)


def deletion_sync(folder: Path, deletions: Deletions = Deletions.MIRROR) -> DeletionSync:
    """Return the deletions of the next process."""
    file = LeftoversStore(StateDb(str(folder)), Target("https://api.example.com", "box", "us"))
    return DeletionSync(deletions, cast(Api, None), cast(Looker, None), file, lambda: None)


def test_a_changed_path_in_the_way_is_checked_again(tmp_path: Path) -> None:
    """A changed path that blocks a wanted one is tried again, or it would block it for ever."""
    process = deletion_sync(tmp_path)
    changed = LookResult({"a": SeenEntry(Kind.FILE)})
    process.removed([changed], process.paths_to_delete([{"a": FILE}], Manifest(), ()), Manifest())
    process.note_arrived([{"a": FILE}], Manifest(), ())
    assert process.paths_to_delete((), Manifest(), ()) == {}
    assert process.paths_to_delete((), Manifest({"a": FOLDER}), ()) == {"a": [FILE]}


def test_the_later_of_two_looks_counts(tmp_path: Path) -> None:
    """What the first one only found there, the second one may have removed; what is missing there is removed."""
    process, held = deletion_sync(tmp_path), {"a": FILE, "b": FILE, "c": FILE}
    looks = [
        LookResult(dict.fromkeys("ab", SeenEntry(Kind.FILE)) | {"c": ABSENT}),
        LookResult({}, removed=["a"]),
    ]
    process.removed(looks, process.paths_to_delete([held], Manifest(), ()), Manifest())
    process.note_arrived([held], Manifest(), ())
    assert [path for path in held if process.has_leftover(path)] == ["b"]
