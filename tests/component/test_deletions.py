"""What is left over in a sandbox, where a process dies between two records, and of what is in the way there."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from syncd.core.choices import Deletions
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.remote.api import Api
from syncd.remote.target import Target
from syncd.sandbox.deletions import DeletionSync, LeftoversStore
from syncd.sandbox.look import Looker
from syncd.sandbox.look_request import LookResult

FILE = Entry(Kind.FILE, 0, 0, 5, digest=b"d")
FOLDER = Entry(Kind.DIRECTORY, 0, 0)


def deletion_sync(folder: Path, deletions: Deletions = Deletions.MIRROR) -> DeletionSync:
    """Return the deletions of the next process."""
    file = LeftoversStore(str(folder), Target("https://api.example.com", "box", "us"))
    return DeletionSync(deletions, cast(Api, None), cast(Looker, None), file, lambda: None)


def test_a_process_that_dies_between_the_records(tmp_path: Path) -> None:
    """The next one knows the leftovers of before and after; this one, whose record failed, the new ones."""
    process = deletion_sync(tmp_path, Deletions.KEEP)
    with pytest.raises(OSError, match="full"), process.recording([{"a": FILE}], Manifest(), (), ["a"]):
        raise OSError("full")
    assert process.secret_leftovers == {"a"}
    assert deletion_sync(tmp_path).has_leftover("a")
    with process.recording([], Manifest({"a": FILE}), ()):
        assert deletion_sync(tmp_path).has_leftover("a")
    assert not process.has_leftover("a")
    assert not deletion_sync(tmp_path).has_leftover("a")


def test_a_changed_path_in_the_way_is_checked_again(tmp_path: Path) -> None:
    """A changed path that blocks a wanted one is tried again, or it would block it for ever."""
    process = deletion_sync(tmp_path)
    changed = LookResult({"a": SeenEntry(Kind.FILE)})
    process.removed([changed], process.paths_to_delete([{"a": FILE}], Manifest(), ()), Manifest())
    with process.recording([{"a": FILE}], Manifest(), ()):
        pass
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
    with process.recording([held], Manifest(), ()):
        pass
    assert [path for path in held if process.has_leftover(path)] == ["b"]
