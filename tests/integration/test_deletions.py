"""Paths deleted locally are deleted in the sandbox, if the configuration says so; nothing else is."""

from __future__ import annotations

import shutil

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import TryLater
from syncd.sync.sync_plan import ROUNDS
from tests.clock import LATER_S
from tests.integration.sync_rig import DamagingObserver, Rig


@pytest.fixture
def rig(bare: Rig) -> Rig:
    bare.keys["sandbox"]["deletions"] = "mirror"
    bare.wait_for_programs()
    return bare


def there(rig: Rig) -> list[str]:
    top = rig.sandbox.workspace
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def test_a_deleted_path_is_removed(rig: Rig) -> None:
    """It is removed before the initialize; the agent's files and their folder stay."""
    for path in ("a", "d/e/f", "g/ours", "stay"):
        rig.write(path)
    rig.sync()
    rig.agent.write("g/theirs", "the agent's")
    rig.agent.write("more", "the agent's")
    rig.delete("a", "d/e/f", "g/ours")
    for path in ("d/e", "d", "g"):
        (rig.workspace / path).rmdir()
    rig.sync()
    assert there(rig) == ["g", "g/theirs", "more", "stay"]
    assert rig.asked()[-1] == "initialize"
    assert "execute" in rig.asked()
    assert rig.warnings == {}
    asked = len(rig.asked())
    rig.send({"stay": "changed"})
    assert "execute" not in rig.asked()[asked:]
    (rig.sandbox.workspace / "g/theirs").unlink()
    rig.delete("stay")
    rig.sync()
    assert there(rig) == ["g", "more"]  # the folder was the agent's by then


def test_a_path_that_the_agent_changed_and_a_rule_excludes(rig: Rig) -> None:
    """Its warning does not say that it was deleted here, and names what takes it: `diff` and `resolve` do not."""
    rig.keys["sandbox"]["agent_changes"] = "save"
    rig.send({"a": "ours", "stay": "hello"})
    rig.agent.write("a", "THEIRS")
    rig.send({".syncdignore": "a\n"})
    (warning,) = rig.cycle.warnings
    assert "'a' is excluded here and was changed in the sandbox" in str(warning)
    assert "--include" in str(warning)


def test_a_path_whose_folder_became_a_link(rig: Rig) -> None:
    """What is behind the link is another path: no rule excludes this one, and no pattern brings it home."""
    rig.keys["sandbox"]["agent_changes"] = "save"
    rig.send({"d/a": "ours", "stay": "hello"})
    rig.agent.write("d/a", "THEIRS")
    (rig.workspace / "d").rename(rig.workspace / "e")
    (rig.workspace / "d").symlink_to("e")
    rig.sync()
    (warning,) = (each for each in rig.cycle.warnings if each.key == "kept:d/a")
    assert str(warning).startswith("'d/a' was deleted here and changed in the sandbox, where it stays")


def test_a_removal_that_the_last_round_leaves_to_do(rig: Rig) -> None:
    """An archive that comes late may have put it there once more: the sync is tried again, whatever it has arrived."""
    rig.send({"a": "hello", "stay": "hello"})
    rig.delete("a")
    rig.write("stay", "new")
    with pytest.raises(TryLater):
        rig.sync(observer=DamagingObserver(rig.clock, folder=rig.folder, times=ROUNDS - 1))
    assert rig.arrived()["stay"] == "new"
    asked = len(rig.asked())
    rig.sync()
    assert "execute" in rig.asked()[asked:]
    assert rig.sync()[0].sync is None


def test_an_unreadable_path_is_not_deleted(rig: Rig) -> None:
    """A folder or file that exists but cannot be read stays."""
    for path in ("closed/f", "stay"):
        rig.write(path)
    rig.sync()
    # Its rules cannot be read, so it is excluded as a whole, for any user.
    with (rig.workspace / "closed" / ".gitignore").open("wb") as rules:
        rules.truncate(5 << 20)
    rig.sync()
    assert "closed/f" in there(rig)
    assert "execute" not in rig.asked()


@pytest.mark.parametrize(
    "fault", ["execute: 500", "execute: failed", "execution-upload-url: 404", "execution-logs: 500"]
)
@pytest.mark.parametrize("dump", [True, False], ids=["with a dump", "without"])
def test_a_sandbox_without_executions(rig: Rig, fault: str, *, dump: bool) -> None:
    """All else is synced; the undeleted paths have a warning and are tried again by the next sync and process."""
    rig.send({"a": "hello", "stay": "hello"})
    rig.emulator.faults.script(f"{fault} always")
    if not dump:
        rig.emulator.faults.script("dump: 501 always")
    rig.delete("a")
    rig.send({"stay": "new"})
    assert rig.arrived()["stay"] == "new"
    if fault == "execution-logs: 500":  # the program did run
        assert list(rig.warnings) == ([] if dump else ["delete"])
    else:
        assert "a" in there(rig)
        assert list(rig.warnings) == ["delete:a" if dump else "delete"]
        assert rig.status.lingering == 1
    assert rig.sync()[0].word == "unchanged"
    rig.restart()
    rig.end_faults()
    rig.sync()
    assert there(rig) == ["stay"]
    assert rig.warnings == {}


def deleted(rig: Rig, *faults: str) -> None:
    """Have `a` be deleted here, and a sync with these faults not remove it there."""
    rig.send({"a": "hello", "stay": "hello"})
    rig.emulator.faults.script(*faults)
    rig.delete("a")
    rig.sync()
    assert "a" in rig.arrived()
    assert list(rig.warnings) == ["delete:a"]


def test_many_that_could_not_be_removed(rig: Rig) -> None:
    """Not each has a line."""
    for number in range(70):
        rig.write(f"many/{number}")
        rig.write(f"stay/{number}")
    rig.sync()
    rig.emulator.faults.script("execution-upload-url: 404 always")
    shutil.rmtree(rig.workspace / "many")
    rig.sync()
    assert len(rig.warnings) == 51
    assert "21 more paths deleted here could not be removed" in str(rig.cycle.warnings[-1])


def test_a_removal_where_no_program_runs(rig: Rig) -> None:
    """It is tried along with each sync, and causes none by itself: the whole archive would be read each time."""
    deleted(rig, "execution-upload-url: 404 always")
    rig.clock.go_on(1_000)
    assert rig.sync()[0].word == "unchanged"
    rig.emulator.faults.clear()
    rig.send({"stay": "new"})
    assert there(rig) == ["stay"]


def test_what_could_not_be_removed_is_kept_by_then(rig: Rig) -> None:
    """Its warning names `sandbox.deletions = "keep"`: no later process tries again, nor sends anything for that."""
    deleted(rig, "execution-upload-url: 404 always")
    rig.set(deletions="keep")
    assert rig.is_quiet()
    assert rig.warnings == {}


def test_a_removal_that_hung_is_not_waited_for_again(rig: Rig) -> None:
    """What is saved next is sent at once, and the removal stays a warning until it is tried again by itself."""
    deleted(rig, "execute: pending always")
    for content in ("new", "newer"):
        began_s, asked = rig.clock.monotonic, len(rig.asked())
        rig.send({"stay": content})
        assert rig.arrived() == {"a": "hello", "stay": content}
        assert rig.clock.monotonic - began_s < 1
        assert "execute" not in rig.asked()[asked:]
        assert (list(rig.warnings), rig.status.lingering) == (["delete:a"], 1)
    rig.emulator.faults.clear()
    rig.clock.go_on(15)
    rig.sync()
    assert (there(rig), list(rig.warnings)) == (["stay"], [])


@pytest.mark.parametrize("mode", [SyncMode.ASKED, SyncMode.FORCED])
def test_a_removal_that_hung_is_tried_again_on_request(rig: Rig, mode: SyncMode) -> None:
    """Whoever waits for a sync, or wants all as it is here, does not wait for its time."""
    deleted(rig, "execute: pending always")
    rig.emulator.faults.clear()
    rig.sync(mode)
    assert (there(rig), list(rig.warnings), rig.status.lingering) == (["stay"], [], 0)


# -- paths that stayed there


@pytest.fixture
def synced(bare: Rig) -> Rig:
    """`a`, `d/b` and `stay` are in the sandbox, where deleted paths are kept."""
    bare.clock.wall = LATER_S
    bare.wait_for_programs()
    for path in ("a", "d/b", "stay"):
        bare.write(path)
    bare.sync()
    return bare


def mirrored(synced: Rig) -> None:
    """Let the next process remove deleted paths that nobody changed there."""
    synced.set(deletions="mirror", agent_changes="save")


@pytest.mark.parametrize("by", [SyncMode.FORCED, SyncMode.CHANGED])
def test_a_changed_path_is_checked_again(synced: Rig, by: SyncMode) -> None:
    """It is looked at by each sync: it may have been removed there, or restored, and then it does not stay."""
    mirrored(synced)
    for path in ("a", "d/b"):
        synced.agent.write(path, "the agent's")
        (synced.workspace / path).unlink()
    synced.sync()
    assert list(synced.warnings) == ["kept:a", "kept:d/b"]
    synced.agent.delete("a")
    synced.agent.write("d/b", "hello")
    synced.write("new")
    synced.sync(by)
    assert synced.warnings == {}
    assert synced.status.lingering == 0
    assert set(synced.arrived()) == {"stay", "new"}
    assert synced.sync()[0].word == "unchanged"


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("faults", [("initialize: 404",), ("initialize: 404", "get: 404")])
def test_a_404_forgets_none(synced: Rig, faults: tuple[str, ...], *, restarted: bool) -> None:
    """A sandbox that is configured may be there again: what was deleted here is removed then."""
    synced.delete("a")
    synced.sync()
    synced.emulator.faults.script(*faults)
    synced.write("stay", "changed")
    synced.fail()
    assert synced.status.lingering == 1
    if restarted:
        synced.restart()
    mirrored(synced)
    synced.sync()
    assert set(synced.arrived()) == {"stay", "d/b"}
