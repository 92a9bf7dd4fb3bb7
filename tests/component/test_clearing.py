"""What is made way for in a sandbox, what is said of what stays, and what is remembered of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

import pytest

from syncd.base.errors import KeyRefused
from syncd.effects.api import Api
from syncd.effects.clearing import Clearing
from syncd.effects.failure import StepFailed
from syncd.effects.lingering_file import LingeringFile
from syncd.effects.removal import Removal, Remover
from syncd.policy.manifest import Entry, Kind, Manifest
from syncd.policy.removal import Deletions, Versions
from syncd.policy.target import Target
from syncd.policy.verdict import Step, Verdict

TARGET = Target("https://api.example.com", "box", "us")
FILE = Entry(Kind.FILE, 0, 0, 5, digest=b"d")
FOLDER = Entry(Kind.DIRECTORY, 0, 0)
GONE: Manifest = {"a": FILE, "d": FOLDER, "d/b": FILE}


def check() -> None:
    """What is called all the time while a removal goes on."""


class Sandbox(Remover):
    """Answers each removal as it is told, and writes down what it was asked for; also what stands for the API."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.removal: Removal | StepFailed = Removal()

    def reset(self) -> None:
        self.asked.append("reset")

    def settle(self, check: Callable[[], None] = lambda: None) -> None:
        self.asked.append(f"settle {check.__name__}")

    def disarm(self) -> None:
        self.asked.append("disarm")

    def remove(self, doomed: Versions, check: Callable[[], None] = lambda: None) -> Removal:
        self.asked.append(f"remove {' '.join(doomed)} {check.__name__}")
        if isinstance(self.removal, StepFailed):
            raise self.removal
        return self.removal


class Stage:
    """One sandbox with what was sent to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sandbox = Sandbox()

    def clearing(
        self,
        deletions: Deletions = Deletions.MIRROR,
        stays_home: Callable[[str, bool], bool] = lambda _path, _is_dir: False,
        hindered: Collection[str] = (),
    ) -> Clearing:
        """That of the next process."""
        file, api = LingeringFile(str(self.folder), TARGET), cast(Api, self.sandbox)
        return Clearing(deletions, api, self.sandbox, file, check, stays_home=stays_home, hindered=hindered)

    def synced(self, clearing: Clearing, held: Manifest, wanted: Manifest) -> set[str]:
        """The paths that are hindered in a sync that goes well."""
        held_before = iter([held])
        doomed = clearing.doomed(held_before, wanted, ())
        hindered = clearing.clear(doomed, wanted)
        with clearing.accounting([held], {path: wanted[path] for path in wanted.keys() - hindered}, ()):
            pass
        return hindered


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_what_is_kept_is_counted(stage: Stage) -> None:
    """With `keep` nothing is removed, and nothing is told, but it is known what lingers, to the next process too."""
    clearing = stage.clearing(Deletions.KEEP)
    assert not clearing.removes
    assert clearing.doomed([GONE], {}, ()) == {}
    assert stage.synced(clearing, GONE, {}) == set()
    assert stage.sandbox.asked == ["settle check"]
    for process in (clearing, stage.clearing(Deletions.KEEP)):
        assert process.lingering_files == 2
        assert process.lingers("d/b")
        assert not process.lingers("stay")
        assert process.problems == []
        assert not process.owes({}, ())


def test_with_keep_only_what_is_in_the_way_goes(stage: Stage) -> None:
    """Where a path changed its kind; what was deleted besides stays."""
    clearing = stage.clearing(Deletions.KEEP)
    assert clearing.doomed([GONE], {"a": FILE, "d": FILE}, ()) == {"d/b": [FILE], "d": [FOLDER]}
    assert clearing.doomed([{"x": FILE}, GONE], {"a": FOLDER}, ()) == {"a": [FILE]}


def test_what_lingers_is_owed_once_it_is_to_be_removed(stage: Stage) -> None:
    """What an earlier time left is removed with the next sync, which needs no other reason."""
    stage.synced(stage.clearing(Deletions.KEEP), GONE, {})
    clearing = stage.clearing()
    assert clearing.owes({}, ())
    assert not clearing.owes({}, ["a", "d"])
    assert not clearing.owes(GONE, ())
    assert clearing.doomed((), {}, ["a"]) == {"d/b": [FILE], "d": [FOLDER]}
    stage.sandbox.removal = Removal(removed=["d/b", "d", "a"])
    assert stage.synced(clearing, {}, {}) == set()
    assert stage.sandbox.asked[-2:] == ["settle check", "remove d/b d a check"]
    assert clearing.lingering_files == 0
    assert not stage.clearing().owes({}, ())
    assert not stage.clearing().lingers("a")


def test_each_fate_is_told(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Whose change keeps a path, what could not be removed and why; a folder that others use is let go."""
    caplog.set_level(logging.INFO)
    clearing = stage.clearing()
    stage.sandbox.removal = Removal(removed=["c"], kept=["d"], changed=["a"], failed={"b": "busy"})
    assert stage.synced(clearing, {"a": FILE, "b": FILE, "c": FILE, "d": FOLDER}, {}) == set()
    assert [(each.key, str(each)) for each in clearing.problems] == [
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
    assert (clearing.lingers("a"), clearing.lingers("b"), clearing.lingers("c"), clearing.lingers("d")) == (
        True,
        True,
        False,
        False,
    )
    # Neither is a reason for another sync at once, and what is someone else's none to look; what failed is tried again.
    assert not clearing.owes({}, ())
    assert clearing.doomed((), {}, ["b"]) == {}
    assert clearing.doomed((), {}, ()) == {"b": [FILE], "a": [FILE]}
    clearing.try_all_again()
    assert clearing.owes({}, ())
    assert clearing.doomed((), {}, ["b"]) == {"a": [FILE]}
    # The next process tries again what failed.
    assert stage.clearing().owes({}, ())
    stage.sandbox.removal = Removal(removed=["b"], changed=["a"])
    later = stage.clearing()
    stage.synced(later, {}, {})
    assert [each.key for each in later.problems] == ["kept:a"]
    assert not stage.clearing().owes({}, ())


def test_what_hinders_others_tell_of(stage: Stage) -> None:
    """A path whose place is still taken is handed back, and is no warning of a deletion."""
    clearing = stage.clearing()
    stage.sandbox.removal = Removal(kept=["d"], changed=["e"], failed={"f": "busy"})
    held = {"d": FOLDER, "e": FOLDER, "f": FOLDER}
    assert stage.synced(clearing, held, {"d": FILE, "e": FILE, "f": FILE}) == {"d", "e", "f"}
    assert clearing.problems == []
    # A folder that others use is let go where nothing of ours wants its place; here it is still to go, as all three.
    assert [path for path in held if clearing.lingers(path)] == ["d", "e", "f"]
    assert stage.clearing().problems != []
    assert stage.clearing(hindered=["e"]).problems == []
    stage.sandbox.removal = Removal(removed=["d", "e", "f"])
    assert stage.synced(clearing, held, {"d": FILE, "e": FILE, "f": FILE}) == set()


def test_what_someone_changed_is_looked_at_where_it_hinders(stage: Stage) -> None:
    """Otherwise it would be in the way for ever."""
    clearing = stage.clearing()
    stage.sandbox.removal = Removal(changed=["a"])
    stage.synced(clearing, {"a": FILE}, {})
    assert clearing.doomed((), {}, ()) == {}
    assert clearing.doomed((), {"a": FOLDER}, ()) == {"a": [FILE]}


@pytest.mark.parametrize(
    "failed",
    [
        StepFailed(Step.DELETE, Verdict.RETRY, "busy"),
        StepFailed(Step.DELETE, Verdict.REFUSED, "no such key", refusal=KeyRefused),
    ],
    ids=str,
)
def test_a_removal_that_fails(stage: Stage, failed: StepFailed) -> None:
    """It fails the sync where another try, or another key, may do it."""
    stage.sandbox.removal = failed
    clearing = stage.clearing()
    with pytest.raises(StepFailed) as raised:
        clearing.clear({"a": [FILE]}, {})
    assert raised.value is failed
    assert clearing.problems == []


def test_a_removal_that_is_refused(stage: Stage) -> None:
    """Everything else goes on; all of it stays, is told in one, and hinders what has its name."""
    stage.sandbox.removal = StepFailed(Step.DELETE, Verdict.REFUSED, "no executions")
    clearing = stage.clearing()
    assert stage.synced(clearing, {"a": FILE, "d": FOLDER}, {"d": FILE}) == {"d"}
    (problem,) = clearing.problems
    assert problem.key == "delete"
    assert str(problem) == (
        '2 deleted paths stay in the sandbox (no executions): remove them there, or set sandbox.deletions = "keep"'
    )
    assert clearing.lingers("a")
    assert clearing.lingers("d")
    assert not clearing.owes({"d": FILE}, ())
    stage.sandbox.removal = Removal(removed=["d", "a"])
    assert stage.synced(clearing, {"d": FILE}, {"d": FILE}) == set()
    assert clearing.problems == []


def test_nothing_to_remove(stage: Stage) -> None:
    """What was begun before is still waited for, and what was told of it is told no more."""
    clearing = stage.clearing()
    stage.sandbox.removal = Removal(failed={"a": "busy"})
    stage.synced(clearing, {"a": FILE}, {})
    assert len(clearing.problems) == 1
    assert clearing.clear({}, {}) == set()
    assert clearing.problems == []
    assert stage.sandbox.asked[-1] == "settle check"
    assert clearing.owes({}, ())
    assert not clearing.empties({})


def test_a_reset(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """It takes everything, so nothing is waited for before and nothing lingers after."""
    caplog.set_level(logging.INFO)
    stage.synced(stage.clearing(Deletions.KEEP), {"old": FILE}, {})
    stage.sandbox.asked.clear()
    clearing = stage.clearing(Deletions.RESET)
    assert clearing.removes
    doomed = clearing.doomed([GONE], {}, ())
    assert clearing.empties(doomed)
    assert not clearing.empties({})
    assert clearing.clear(doomed, {}) == set()
    assert stage.sandbox.asked == ["reset", "disarm"]
    assert caplog.record_tuples[-1] == (
        "syncd.clearing",
        logging.INFO,
        "the sandbox was reset, as 4 paths were deleted",
    )
    with clearing.accounting([GONE], {}, ()):
        assert stage.clearing().lingers("old")  # a process that dies here believes what may be
    assert clearing.lingering_files == 0
    assert not clearing.lingers("old")
    assert not stage.clearing().lingers("old")
    # Only the sync that was reset is accounted for so.
    with clearing.accounting([GONE], {}, ["d"]):
        pass
    assert clearing.lingering_files == 1
    assert not stage.clearing(Deletions.MIRROR).empties(doomed)


@pytest.mark.parametrize(
    ("home", "wanted", "reset"),
    [
        ({("a", False), ("d", True), ("d/b", False)}, {}, False),
        ({("a", False), ("d", True)}, {}, True),
        ({("a", False), ("d", False), ("d/b", False)}, {}, True),
        ({("a", False), ("d", True), ("d/b", False)}, {"a": FOLDER}, True),
    ],
)
def test_a_new_rule_is_no_deletion(stage: Stage, home: set[tuple[str, bool]], wanted: Manifest, *, reset: bool) -> None:
    """What is left out by now resets nothing; what was deleted, or is of another kind, does."""
    clearing = stage.clearing(Deletions.RESET, lambda path, is_dir: (path, is_dir) in home)
    assert bool(clearing.doomed([GONE], wanted, ())) is reset
    mirror = stage.clearing(Deletions.MIRROR, lambda path, is_dir: (path, is_dir) in home)
    assert mirror.doomed([GONE], wanted, ()) != {}


def test_what_lingers_is_owed_by_a_reset_too(stage: Stage) -> None:
    """But not where all of it is left out by a new rule, unless the place of one is wanted."""
    stage.synced(stage.clearing(Deletions.KEEP), GONE, {})
    assert stage.clearing(Deletions.RESET).owes({}, ())
    left_out = stage.clearing(Deletions.RESET, stays_home=lambda _path, _is_dir: True)
    assert not left_out.owes({}, ())
    assert left_out.owes({"a": FOLDER}, ())


def test_a_record_that_fails(stage: Stage) -> None:
    """What lingers after is known by this process; the next one may find either."""
    clearing = stage.clearing(Deletions.KEEP)
    with pytest.raises(OSError, match="full"), clearing.accounting([{"a": FILE}], {}, (), ["a"]):
        raise OSError("full")
    assert clearing.lingers("a")
    assert clearing.secret == {"a"}
    assert stage.clearing().lingers("a")
    with clearing.accounting([], {"a": FILE}, ()):
        assert stage.clearing().lingers("a")
    assert not clearing.lingers("a")
    assert not stage.clearing().lingers("a")


def test_a_sandbox_that_is_gone(stage: Stage) -> None:
    """Nothing lingers in it any more, for any process."""
    clearing = stage.clearing(Deletions.KEEP)
    stage.synced(clearing, GONE, {})
    clearing.forget()
    assert not clearing.lingers("a")
    assert clearing.lingering_files == 0
    assert not stage.clearing().lingers("a")


def test_where_nothing_can_be_written(stage: Stage) -> None:
    """Only this process knows."""
    stage.folder = stage.folder / "missing"
    clearing = stage.clearing(Deletions.KEEP)
    stage.synced(clearing, GONE, {})
    assert clearing.lingers("a")
