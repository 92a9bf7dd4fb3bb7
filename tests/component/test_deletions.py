"""Deletions in a sandbox: what is removed, what is reported of the rest, and what is recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

import pytest

from syncd.core.errors import KeyRefused
from syncd.remote.api import Api
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import ApiStep, FailureAction
from syncd.remote.target import Target
from syncd.sandbox.deletions import DeletionSync
from syncd.sandbox.leftovers_store import LeftoversStore
from syncd.sandbox.removal_plan import Deletions, Versions
from syncd.sandbox.remover import Removal, Remover
from syncd.scan.manifest import Entry, Kind, Manifest

TARGET = Target("https://api.example.com", "box", "us")
FILE = Entry(Kind.FILE, 0, 0, 5, digest=b"d")
FOLDER = Entry(Kind.DIRECTORY, 0, 0)
GONE: Manifest = {"a": FILE, "d": FOLDER, "d/b": FILE}


def check() -> None:
    """The check that is called throughout a removal."""


class FakeRemover(Remover):
    """A remover that answers as set up and records its requests; it also stands for the API."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.removal: Removal | StepFailed = Removal()

    def reset(self) -> None:
        self.asked.append("reset")

    def settle(self, check: Callable[[], None] = lambda: None) -> None:
        self.asked.append(f"settle {check.__name__}")

    def neutralise(self) -> None:
        self.asked.append("disarm")

    def remove(self, paths_to_delete: Versions, check: Callable[[], None] = lambda: None) -> Removal:
        self.asked.append(f"remove {' '.join(paths_to_delete)} {check.__name__}")
        if isinstance(self.removal, StepFailed):
            raise self.removal
        return self.removal


class DeletionRig:
    """One sandbox with what was synced to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sandbox = FakeRemover()

    def deletion_sync(
        self,
        deletions: Deletions = Deletions.MIRROR,
        is_excluded: Callable[[str, bool], bool] = lambda _path, _is_dir: False,
        hindered: Collection[str] = (),
    ) -> DeletionSync:
        """Return the deletion sync of the next process."""
        file, api = LeftoversStore(str(self.folder), TARGET), cast(Api, self.sandbox)
        return DeletionSync(deletions, api, self.sandbox, file, check, is_excluded=is_excluded, hindered=hindered)

    def synced(self, deletion_sync: DeletionSync, held: Manifest, wanted: Manifest) -> set[str]:
        """Return the paths that are blocked in a successful sync."""
        held_before = iter([held])
        paths_to_delete = deletion_sync.paths_to_delete(held_before, wanted, ())
        hindered = deletion_sync.clear(paths_to_delete, wanted)
        with deletion_sync.accounting([held], {path: wanted[path] for path in wanted.keys() - hindered}, ()):
            pass
        return hindered


@pytest.fixture
def rig(tmp_path: Path) -> DeletionRig:
    return DeletionRig(tmp_path)


def test_what_is_kept_is_counted(rig: DeletionRig) -> None:
    """With `keep` nothing is removed or reported; the leftovers are recorded, for the next process too."""
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    assert not deletion_sync.removes
    assert deletion_sync.paths_to_delete([GONE], {}, ()) == {}
    assert rig.synced(deletion_sync, GONE, {}) == set()
    assert rig.sandbox.asked == ["settle check"]
    for process in (deletion_sync, rig.deletion_sync(Deletions.KEEP)):
        assert process.lingering_files == 2
        assert process.keeps_leftovers("d/b")
        assert not process.keeps_leftovers("stay")
        assert process.warnings == []
        assert not process.owes({}, ())


def test_keep_removes_only_what_is_in_the_way(rig: DeletionRig) -> None:
    """Paths that changed their kind are removed; deleted paths stay."""
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    assert deletion_sync.paths_to_delete([GONE], {"a": FILE, "d": FILE}, ()) == {"d/b": [FILE], "d": [FOLDER]}
    assert deletion_sync.paths_to_delete([{"x": FILE}, GONE], {"a": FOLDER}, ()) == {"a": [FILE]}


def test_leftovers_are_removed_after_keep(rig: DeletionRig) -> None:
    """Recorded leftovers are removed with the next sync, which needs no other reason."""
    rig.synced(rig.deletion_sync(Deletions.KEEP), GONE, {})
    deletion_sync = rig.deletion_sync()
    assert deletion_sync.owes({}, ())
    assert not deletion_sync.owes({}, ["a", "d"])
    assert not deletion_sync.owes(GONE, ())
    assert deletion_sync.paths_to_delete((), {}, ["a"]) == {"d/b": [FILE], "d": [FOLDER]}
    rig.sandbox.removal = Removal(removed=["d/b", "d", "a"])
    assert rig.synced(deletion_sync, {}, {}) == set()
    assert rig.sandbox.asked[-2:] == ["settle check", "remove d/b d a check"]
    assert deletion_sync.lingering_files == 0
    assert not rig.deletion_sync().owes({}, ())
    assert not rig.deletion_sync().keeps_leftovers("a")


def test_each_outcome_is_reported(rig: DeletionRig, caplog: pytest.LogCaptureFixture) -> None:
    """Paths that were changed or could not be removed are named with the reason; a folder in use is kept silently."""
    caplog.set_level(logging.INFO)
    deletion_sync = rig.deletion_sync()
    rig.sandbox.removal = Removal(removed=["c"], kept=["d"], changed=["a"], failed={"b": "busy"})
    assert rig.synced(deletion_sync, {"a": FILE, "b": FILE, "c": FILE, "d": FOLDER}, {}) == set()
    assert [(each.key, str(each)) for each in deletion_sync.warnings] == [
        (
            "kept:a",
            (
                "'a' was deleted here and changed in the sandbox, where it stays: "
                "run `syncd pull` to have it, or remove it there and run `syncd push --force`"
            ),
        ),
        (
            "delete:b",
            "'b' was deleted here and could not be removed in the sandbox (busy): it is tried again with the next sync",
        ),
    ]
    assert caplog.record_tuples == [
        ("syncd.clearing", logging.INFO, "2 paths removed in the sandbox, 1 changed there and kept, 1 failed")
    ]
    assert (
        deletion_sync.keeps_leftovers("a"),
        deletion_sync.keeps_leftovers("b"),
        deletion_sync.keeps_leftovers("c"),
        deletion_sync.keeps_leftovers("d"),
    ) == (
        True,
        True,
        False,
        False,
    )
    # Neither causes another sync at once, and a changed path no check; a failed removal is tried again.
    assert not deletion_sync.owes({}, ())
    assert deletion_sync.paths_to_delete((), {}, ["b"]) == {}
    assert deletion_sync.paths_to_delete((), {}, ()) == {"b": [FILE], "a": [FILE]}
    deletion_sync.try_all_again()
    assert deletion_sync.owes({}, ())
    assert deletion_sync.paths_to_delete((), {}, ["b"]) == {"a": [FILE]}
    # The next process tries again what failed.
    assert rig.deletion_sync().owes({}, ())
    rig.sandbox.removal = Removal(removed=["b"], changed=["a"])
    later = rig.deletion_sync()
    rig.synced(later, {}, {})
    assert [each.key for each in later.warnings] == ["kept:a"]
    assert not rig.deletion_sync().owes({}, ())


def test_a_blocked_path_is_no_deletion_warning(rig: DeletionRig) -> None:
    """A path whose place is taken is returned, and causes no deletion warning."""
    deletion_sync = rig.deletion_sync()
    rig.sandbox.removal = Removal(kept=["d"], changed=["e"], failed={"f": "busy"})
    held = {"d": FOLDER, "e": FOLDER, "f": FOLDER}
    assert rig.synced(deletion_sync, held, {"d": FILE, "e": FILE, "f": FILE}) == {"d", "e", "f"}
    assert deletion_sync.warnings == []
    assert deletion_sync.keeps_leftovers("e")
    assert rig.deletion_sync().warnings != []
    assert rig.deletion_sync(hindered=["e"]).warnings == []
    rig.sandbox.removal = Removal(removed=["d", "e", "f"])
    assert rig.synced(deletion_sync, held, {"d": FILE, "e": FILE, "f": FILE}) == set()


def test_a_changed_path_in_the_way_is_checked_again(rig: DeletionRig) -> None:
    """Otherwise it would block its path for ever."""
    deletion_sync = rig.deletion_sync()
    rig.sandbox.removal = Removal(changed=["a"])
    rig.synced(deletion_sync, {"a": FILE}, {})
    assert deletion_sync.paths_to_delete((), {}, ()) == {}
    assert deletion_sync.paths_to_delete((), {"a": FOLDER}, ()) == {"a": [FILE]}


@pytest.mark.parametrize(
    "failed",
    [
        StepFailed(ApiStep.DELETE, FailureAction.RETRY, "busy"),
        StepFailed(ApiStep.DELETE, FailureAction.REFUSED, "no such key", refusal=KeyRefused),
    ],
    ids=str,
)
def test_a_removal_that_fails(rig: DeletionRig, failed: StepFailed) -> None:
    """It fails the sync if a retry or another key may help."""
    rig.sandbox.removal = failed
    deletion_sync = rig.deletion_sync()
    with pytest.raises(StepFailed) as raised:
        deletion_sync.clear({"a": [FILE]}, {})
    assert raised.value is failed
    assert deletion_sync.warnings == []


def test_a_removal_that_is_refused(rig: DeletionRig) -> None:
    """The sync goes on; all paths stay, are reported in one warning, and block their names."""
    rig.sandbox.removal = StepFailed(ApiStep.DELETE, FailureAction.REFUSED, "no executions")
    deletion_sync = rig.deletion_sync()
    assert rig.synced(deletion_sync, {"a": FILE, "d": FOLDER}, {"d": FILE}) == {"d"}
    (warning,) = deletion_sync.warnings
    assert warning.key == "delete"
    assert str(warning) == (
        '2 deleted paths stay in the sandbox (no executions): remove them there, or set sandbox.deletions = "keep"'
    )
    assert deletion_sync.keeps_leftovers("a")
    assert deletion_sync.keeps_leftovers("d")
    assert not deletion_sync.owes({"d": FILE}, ())
    rig.sandbox.removal = Removal(removed=["d", "a"])
    assert rig.synced(deletion_sync, {"d": FILE}, {"d": FILE}) == set()
    assert deletion_sync.warnings == []


def test_nothing_to_remove(rig: DeletionRig) -> None:
    """An earlier removal is still waited for, and its warning ends."""
    deletion_sync = rig.deletion_sync()
    rig.sandbox.removal = Removal(failed={"a": "busy"})
    rig.synced(deletion_sync, {"a": FILE}, {})
    assert len(deletion_sync.warnings) == 1
    assert deletion_sync.clear({}, {}) == set()
    assert deletion_sync.warnings == []
    assert rig.sandbox.asked[-1] == "settle check"
    assert deletion_sync.owes({}, ())
    assert not deletion_sync.empties({})


def test_a_reset(rig: DeletionRig, caplog: pytest.LogCaptureFixture) -> None:
    """It removes everything, so nothing is waited for before and nothing is left over after it."""
    caplog.set_level(logging.INFO)
    rig.synced(rig.deletion_sync(Deletions.KEEP), {"old": FILE}, {})
    rig.sandbox.asked.clear()
    deletion_sync = rig.deletion_sync(Deletions.RESET)
    assert deletion_sync.removes
    paths_to_delete = deletion_sync.paths_to_delete([GONE], {}, ())
    assert deletion_sync.empties(paths_to_delete)
    assert not deletion_sync.empties({})
    assert deletion_sync.clear(paths_to_delete, {}) == set()
    assert rig.sandbox.asked == ["reset", "disarm"]
    assert caplog.record_tuples[-1] == (
        "syncd.clearing",
        logging.INFO,
        "the sandbox was reset, as 4 paths were deleted",
    )
    with deletion_sync.accounting([GONE], {}, ()):
        assert rig.deletion_sync().keeps_leftovers("old")  # a process that dies here may keep them
    assert deletion_sync.lingering_files == 0
    assert not deletion_sync.keeps_leftovers("old")
    assert not rig.deletion_sync().keeps_leftovers("old")
    # Only the sync that was reset is accounted for so.
    with deletion_sync.accounting([GONE], {}, ["d"]):
        pass
    assert deletion_sync.lingering_files == 1
    assert not rig.deletion_sync(Deletions.MIRROR).empties(paths_to_delete)


@pytest.mark.parametrize(
    ("home", "wanted", "reset"),
    [
        ({("a", False), ("d", True), ("d/b", False)}, {}, False),
        ({("a", False), ("d", True)}, {}, True),
        ({("a", False), ("d", False), ("d/b", False)}, {}, True),
        ({("a", False), ("d", True), ("d/b", False)}, {"a": FOLDER}, True),
    ],
)
def test_a_new_rule_is_no_deletion(
    rig: DeletionRig, home: set[tuple[str, bool]], wanted: Manifest, *, reset: bool
) -> None:
    """A newly excluded path causes no reset; a deleted path, or one of another kind, does."""
    deletion_sync = rig.deletion_sync(Deletions.RESET, lambda path, is_dir: (path, is_dir) in home)
    assert bool(deletion_sync.paths_to_delete([GONE], wanted, ())) is reset
    mirror = rig.deletion_sync(Deletions.MIRROR, lambda path, is_dir: (path, is_dir) in home)
    assert mirror.paths_to_delete([GONE], wanted, ()) != {}


def test_a_record_that_cannot_be_written(rig: DeletionRig) -> None:
    """This process knows the leftovers; the next one may have either record."""
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    with pytest.raises(OSError, match="full"), deletion_sync.accounting([{"a": FILE}], {}, (), ["a"]):
        raise OSError("full")
    assert deletion_sync.keeps_leftovers("a")
    assert deletion_sync.secret == {"a"}
    assert rig.deletion_sync().keeps_leftovers("a")
    with deletion_sync.accounting([], {"a": FILE}, ()):
        assert rig.deletion_sync().keeps_leftovers("a")
    assert not deletion_sync.keeps_leftovers("a")
    assert not rig.deletion_sync().keeps_leftovers("a")


def test_a_sandbox_that_has_ended(rig: DeletionRig) -> None:
    """No process has leftovers of it."""
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    rig.synced(deletion_sync, GONE, {})
    deletion_sync.forget()
    assert not deletion_sync.keeps_leftovers("a")
    assert deletion_sync.lingering_files == 0
    assert not rig.deletion_sync().keeps_leftovers("a")


def test_where_nothing_can_be_written(rig: DeletionRig) -> None:
    """Only this process knows the leftovers."""
    rig.folder = rig.folder / "missing"
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    rig.synced(deletion_sync, GONE, {})
    assert deletion_sync.keeps_leftovers("a")
