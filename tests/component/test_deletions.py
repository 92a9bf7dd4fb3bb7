"""Deletions in a sandbox: what is removed, the warnings about what stays, and the leftovers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import cast

import pytest

from syncd.remote.api import Api
from syncd.remote.target import Target
from syncd.sandbox.deletions import DeletionSync
from syncd.sandbox.leftovers_store import LeftoversStore
from syncd.sandbox.look import Looker
from syncd.sandbox.look_request import ABSENT, LookResult, RemoteEntry, RemoteKind
from syncd.sandbox.removal_plan import Deletions
from syncd.scan.entry import Entry, Kind

TARGET = Target("https://api.example.com", "box", "us")
FILE = Entry(Kind.FILE, 0, 0, 5, digest=b"d")
FOLDER = Entry(Kind.DIRECTORY, 0, 0)
GONE = {"a": FILE, "d": FOLDER, "d/b": FILE}


def check() -> None:
    """Called at each poll of a removal."""


class FakeLooker(Looker):
    """A fake looker and API that records its calls."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def reset(self) -> None:
        self.asked.append("reset")

    def settle_pending(self, wanted: Collection[str], check: Callable[[], None] = lambda: None) -> None:
        self.asked.append(f"settle {' '.join(wanted)} {check.__name__}")

    def neutralise(self) -> None:
        self.asked.append("disarm")


def outcome(
    *,
    removed: Collection[str] = (),
    kept: Collection[str] = (),
    changed: Collection[str] = (),
    failed: Mapping[str, str] | None = None,
) -> LookResult:
    """Return the outcome of a look that removes; `changed` are paths that hold something else there."""
    differing = dict.fromkeys(changed, RemoteEntry(RemoteKind.FILE))
    return LookResult(differing, removed=removed, kept=kept, failed=failed or {})


class DeletionRig:
    """One sandbox and its deletions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sandbox = FakeLooker()
        self.looks = [outcome()]
        self.fails = ""  # why nobody could look

    def deletion_sync(
        self,
        deletions: Deletions = Deletions.MIRROR,
        is_excluded: Callable[[str, bool], bool] = lambda _path, _is_dir: False,
        blocked: Collection[str] = (),
    ) -> DeletionSync:
        """Return the deletions of the next process."""
        file, api = LeftoversStore(str(self.folder), TARGET), cast(Api, self.sandbox)
        return DeletionSync(deletions, api, self.sandbox, file, check, is_excluded=is_excluded, blocked=blocked)

    def synced(self, deletion_sync: DeletionSync, held: Mapping[str, Entry], wanted: Mapping[str, Entry]) -> set[str]:
        """Run one successful sync; return its blocked paths."""
        held_before = iter([held])
        paths_to_delete = deletion_sync.paths_to_delete(held_before, wanted, ())
        deletion_sync.settle_pending(wanted)
        if self.fails:
            blocked = deletion_sync.not_removed(paths_to_delete, wanted, self.fails)
        else:
            blocked = deletion_sync.removed(self.looks, paths_to_delete, wanted)
        with deletion_sync.recording([held], {path: wanted[path] for path in wanted.keys() - blocked}, ()):
            pass
        return blocked


@pytest.fixture
def rig(tmp_path: Path) -> DeletionRig:
    return DeletionRig(tmp_path)


def test_what_is_kept_is_counted(rig: DeletionRig) -> None:
    """With `keep` nothing is removed and nothing warned of, but the leftovers are known, to the next process too."""
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    assert not deletion_sync.removes
    assert deletion_sync.paths_to_delete([GONE], {}, ()) == {}
    assert rig.synced(deletion_sync, GONE, {}) == set()
    assert rig.sandbox.asked == ["settle  check"]
    for process in (deletion_sync, rig.deletion_sync(Deletions.KEEP)):
        assert process.leftover_files == 2
        assert process.has_leftover("d/b")
        assert not process.has_leftover("stay")
        assert process.warnings == []
        assert not process.has_pending({}, ())


def test_keep_removes_only_what_is_in_the_way(rig: DeletionRig) -> None:
    """A path that blocks another kind is removed; other deleted paths stay."""
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    assert deletion_sync.paths_to_delete([GONE], {"a": FILE, "d": FILE}, ()) == {"d/b": [FILE], "d": [FOLDER]}
    assert deletion_sync.paths_to_delete([{"x": FILE}, GONE], {"a": FOLDER}, ()) == {"a": [FILE]}


def test_leftovers_are_removed_after_keep(rig: DeletionRig) -> None:
    """Leftovers of earlier syncs are removed with the next one, which needs no other reason."""
    rig.synced(rig.deletion_sync(Deletions.KEEP), GONE, {})
    deletion_sync = rig.deletion_sync()
    assert deletion_sync.has_pending({}, ())
    assert not deletion_sync.has_pending({}, ["a", "d"])
    assert not deletion_sync.has_pending(GONE, ())
    assert deletion_sync.paths_to_delete((), {}, ["a"]) == {"d/b": [FILE], "d": [FOLDER]}
    rig.looks = [outcome(removed=["d/b", "d", "a"])]
    assert rig.synced(deletion_sync, {}, {}) == set()
    assert rig.sandbox.asked[-1] == "settle  check"
    assert deletion_sync.leftover_files == 0
    assert not rig.deletion_sync().has_pending({}, ())
    assert not rig.deletion_sync().has_leftover("a")


def test_each_outcome_is_reported(rig: DeletionRig, caplog: pytest.LogCaptureFixture) -> None:
    """Warnings name changed paths and failed ones with the reason; a folder that is in use is forgotten."""
    caplog.set_level(logging.INFO)
    deletion_sync = rig.deletion_sync()
    rig.looks = [outcome(removed=["c"], kept=["d"], changed=["a"], failed={"b": "busy"})]
    assert rig.synced(deletion_sync, {"a": FILE, "b": FILE, "c": FILE, "d": FOLDER}, {}) == set()
    assert [(each.key, str(each)) for each in deletion_sync.warnings] == [
        (
            "kept:a",
            (
                "'a' was deleted here and changed in the sandbox, where it stays: "
                "`syncd diff` shows it; `syncd push --force` saves it, and removes it there"
            ),
        ),
        (
            "delete:b",
            "'b' was deleted here and could not be removed in the sandbox (busy): it is tried again with the next sync",
        ),
    ]
    assert caplog.record_tuples == [
        ("syncd.deletions", logging.INFO, "2 paths removed in the sandbox, 1 changed there and kept, 1 failed")
    ]
    assert (
        deletion_sync.has_leftover("a"),
        deletion_sync.has_leftover("b"),
        deletion_sync.has_leftover("c"),
        deletion_sync.has_leftover("d"),
    ) == (
        True,
        True,
        False,
        False,
    )
    # Neither causes another sync at once, and a changed path no check; a failed removal is tried again.
    assert not deletion_sync.has_pending({}, ())
    assert deletion_sync.paths_to_delete((), {}, ["b"]) == {}
    assert deletion_sync.paths_to_delete((), {}, ()) == {"b": [FILE], "a": [FILE]}
    deletion_sync.retry_all()
    assert deletion_sync.has_pending({}, ())
    assert deletion_sync.paths_to_delete((), {}, ["b"]) == {"a": [FILE]}
    # The next process tries again what failed.
    assert rig.deletion_sync().has_pending({}, ())
    rig.looks = [outcome(removed=["b"], changed=["a"])]
    later = rig.deletion_sync()
    rig.synced(later, {}, {})
    assert [each.key for each in later.warnings] == ["kept:a"]
    assert not rig.deletion_sync().has_pending({}, ())


def test_a_blocked_path_is_no_deletion_warning(rig: DeletionRig) -> None:
    """A path whose place is still taken is returned as blocked, without a warning of a deletion."""
    deletion_sync = rig.deletion_sync()
    rig.looks = [outcome(kept=["d"], changed=["e"], failed={"f": "busy"})]
    held = {"d": FOLDER, "e": FOLDER, "f": FOLDER}
    assert rig.synced(deletion_sync, held, {"d": FILE, "e": FILE, "f": FILE}) == {"d", "e", "f"}
    assert deletion_sync.warnings == []
    # A folder that others use stays if nothing of ours wants its place; here all three are still to be removed.
    assert [path for path in held if deletion_sync.has_leftover(path)] == ["d", "e", "f"]
    assert rig.deletion_sync().warnings != []
    assert rig.deletion_sync(blocked=["e"]).warnings == []
    rig.looks = [outcome(removed=["d", "e", "f"])]
    assert rig.synced(deletion_sync, held, {"d": FILE, "e": FILE, "f": FILE}) == set()


def test_a_changed_path_in_the_way_is_checked_again(rig: DeletionRig) -> None:
    """A changed path that blocks a wanted one is tried again, or it would block it for ever."""
    deletion_sync = rig.deletion_sync()
    rig.looks = [outcome(changed=["a"])]
    rig.synced(deletion_sync, {"a": FILE}, {})
    assert deletion_sync.paths_to_delete((), {}, ()) == {}
    assert deletion_sync.paths_to_delete((), {"a": FOLDER}, ()) == {"a": [FILE]}


def test_where_nobody_can_look(rig: DeletionRig) -> None:
    """All paths stay there, with one warning; they block wanted paths of their names."""
    rig.fails = "no executions"
    deletion_sync = rig.deletion_sync()
    assert rig.synced(deletion_sync, {"a": FILE, "d": FOLDER}, {"d": FILE}) == {"d"}
    (warning,) = deletion_sync.warnings
    assert warning.key == "delete"
    assert str(warning) == (
        '2 deleted paths stay in the sandbox (no executions): remove them there, or set sandbox.deletions = "keep"'
    )
    assert deletion_sync.has_leftover("a")
    assert deletion_sync.has_leftover("d")
    assert not deletion_sync.has_pending({"d": FILE}, ())
    rig.fails, rig.looks = "", [outcome(removed=["d", "a"])]
    assert rig.synced(deletion_sync, {"d": FILE}, {"d": FILE}) == set()
    assert deletion_sync.warnings == []
    assert deletion_sync.not_removed({}, {}, "no reason") == set()
    assert deletion_sync.warnings == []


def test_the_later_of_two_looks_counts(rig: DeletionRig) -> None:
    """What the first one only found there, the second one may have removed; what is missing there is removed."""
    deletion_sync = rig.deletion_sync()
    rig.looks = [outcome(changed=["a", "d/b"]), outcome(removed=["a"], kept=["d"])]
    rig.synced(deletion_sync, GONE, {})
    assert [each.key for each in deletion_sync.warnings] == ["kept:d/b"]
    assert not deletion_sync.has_leftover("a")
    rig.looks = [LookResult({"d/b": ABSENT})]
    rig.synced(deletion_sync, {"b": FILE}, {})
    assert not deletion_sync.has_leftover("d/b")
    assert [each.key for each in deletion_sync.warnings] == ["kept:b"]  # of which no look said anything


def test_nothing_to_remove(rig: DeletionRig) -> None:
    """Without deletions pending removals are still waited for, and old warnings end."""
    deletion_sync = rig.deletion_sync()
    rig.looks = [outcome(failed={"a": "busy"})]
    rig.synced(deletion_sync, {"a": FILE}, {})
    assert len(deletion_sync.warnings) == 1
    deletion_sync.settle_pending({"b": FILE})
    assert deletion_sync.warnings == []
    assert rig.sandbox.asked[-1] == "settle b check"
    assert deletion_sync.removed([], {}, {}) == set()
    assert deletion_sync.has_pending({}, ())
    assert not deletion_sync.resets({})


def test_a_reset(rig: DeletionRig, caplog: pytest.LogCaptureFixture) -> None:
    """A reset waits for no pending removal and leaves nothing over."""
    caplog.set_level(logging.INFO)
    rig.synced(rig.deletion_sync(Deletions.KEEP), {"old": FILE}, {})
    rig.sandbox.asked.clear()
    deletion_sync = rig.deletion_sync(Deletions.RESET)
    assert deletion_sync.removes
    paths_to_delete = deletion_sync.paths_to_delete([GONE], {}, ())
    assert deletion_sync.resets(paths_to_delete)
    assert not deletion_sync.resets({})
    deletion_sync.reset(paths_to_delete)
    assert rig.sandbox.asked == ["reset", "disarm"]
    assert caplog.record_tuples[-1] == (
        "syncd.deletions",
        logging.INFO,
        "the sandbox was reset, as 4 paths were deleted",
    )
    with deletion_sync.recording([GONE], {}, ()):
        assert rig.deletion_sync().has_leftover("old")  # a process that dies here may keep them
    assert deletion_sync.leftover_files == 0
    assert not deletion_sync.has_leftover("old")
    assert not rig.deletion_sync().has_leftover("old")
    # Only the sync that was reset is accounted for so.
    with deletion_sync.recording([GONE], {}, ["d"]):
        pass
    assert deletion_sync.leftover_files == 1
    assert not rig.deletion_sync(Deletions.MIRROR).resets(paths_to_delete)


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
    rig: DeletionRig, home: set[tuple[str, bool]], wanted: Mapping[str, Entry], *, reset: bool
) -> None:
    """A path that is only excluded causes no reset; a deleted one, or one of another kind, does."""
    deletion_sync = rig.deletion_sync(Deletions.RESET, lambda path, is_dir: (path, is_dir) in home)
    assert bool(deletion_sync.paths_to_delete([GONE], wanted, ())) is reset
    mirror = rig.deletion_sync(Deletions.MIRROR, lambda path, is_dir: (path, is_dir) in home)
    assert mirror.paths_to_delete([GONE], wanted, ()) != {}


def test_leftovers_are_pending_under_reset_too(rig: DeletionRig) -> None:
    """Leftovers call for a reset, but not if a new rule excludes all of them, unless the place of one is wanted."""
    rig.synced(rig.deletion_sync(Deletions.KEEP), GONE, {})
    assert rig.deletion_sync(Deletions.RESET).has_pending({}, ())
    excluded = rig.deletion_sync(Deletions.RESET, lambda _path, _is_dir: True)
    assert not excluded.has_pending({}, ())
    assert excluded.has_pending({"a": FOLDER}, ())


def test_a_record_that_fails(rig: DeletionRig) -> None:
    """After a failed record this process knows the new leftovers, the next one those of before and after."""
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    with pytest.raises(OSError, match="full"), deletion_sync.recording([{"a": FILE}], {}, (), ["a"]):
        raise OSError("full")
    assert deletion_sync.has_leftover("a")
    assert deletion_sync.secret_leftovers == {"a"}
    assert rig.deletion_sync().has_leftover("a")
    with deletion_sync.recording([], {"a": FILE}, ()):
        assert rig.deletion_sync().has_leftover("a")
    assert not deletion_sync.has_leftover("a")
    assert not rig.deletion_sync().has_leftover("a")


def test_a_sandbox_that_has_ended(rig: DeletionRig) -> None:
    """A sandbox that ended has no leftovers, for any process."""
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    rig.synced(deletion_sync, GONE, {})
    deletion_sync.forget()
    assert not deletion_sync.has_leftover("a")
    assert deletion_sync.leftover_files == 0
    assert not rig.deletion_sync().has_leftover("a")


def test_where_nothing_can_be_written(rig: DeletionRig) -> None:
    """If the state folder cannot be written, only this process knows the leftovers."""
    rig.folder = rig.folder / "missing"
    deletion_sync = rig.deletion_sync(Deletions.KEEP)
    rig.synced(deletion_sync, GONE, {})
    assert deletion_sync.has_leftover("a")
