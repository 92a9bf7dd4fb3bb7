"""Changes in the sandbox are noticed before they are overwritten, and never stop the sync."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import SandboxNotFound
from syncd.remote.failure import ApiStep
from syncd.sandbox import overwrite_check, overwrite_warnings
from syncd.sandbox.overwrite_check import WARNED_FOR_S
from tests.integration.sync_rig import RecordingObserver, Rig, rigged

EXECUTION_OPS = ("execution-upload-url", "execution-upload", "execute", "execution-logs")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as it:
        it.keys["sandbox"]["warn_on_remote_changes"] = True
        ready(it)
        for name in ("a", "d/b", "d/c", "more"):
            it.write(name, f"ours: {name}")
        (it.workspace / "link").symlink_to("a")
        it.sync()
        yield it


def ready(rig: Rig) -> None:
    # The program runs in real time: wait for its end before the emulator answers.
    for op in ("execution-logs", "execution-status"):
        rig.emulator.faults.on(op, "before", lambda _: rig.sandbox.holds or rig.sandbox.wait())


def agent(rig: Rig, path: str, content: str = "the agent's") -> None:
    file = rig.sandbox.workspace / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def reported(rig: Rig) -> list[str]:
    return [str(warning) for warning in rig.cycle.warnings]


def test_nothing_was_changed(rig: Rig) -> None:
    """There is no warning, in the first sync or later, whatever the times in the sandbox."""
    assert reported(rig) == []
    os.utime(rig.sandbox.workspace / "a", (1, 1))
    agent(rig, "its-own")
    rig.write("more", "new")
    rig.sync()
    assert reported(rig) == []
    assert rig.asked().count("execute") == 2


@pytest.mark.parametrize("archive", ["full", "changes"])
def test_agent_changes_are_reported_and_overwritten(rig: Rig, archive: str) -> None:
    """Each file of a full archive is checked, and those in a partial one."""
    rig.keys["sync"] = {"archive": archive}
    rig.restart()
    agent(rig, "a")
    agent(rig, "d/b", "ours: d/B")
    rig.write("a", "newer")
    rig.sync()
    assert rig.arrived()["a"] == "newer"
    if archive == "full":
        assert reported(rig)[0].startswith(
            "'a' and 'd/b' were changed in the sandbox after syncd had put them there, and "
        )
        assert "the sync of 13:2" in reported(rig)[0]
        assert rig.arrived()["d/b"] == "ours: d/b"
    else:
        assert reported(rig)[0].startswith(
            "'a' was changed in the sandbox after syncd had put it there, and the sync of "
        )
        assert rig.arrived()["d/b"] == "ours: d/B"


def test_other_kinds_and_removed_files(rig: Rig) -> None:
    """A removed file, a link, a folder or a FIFO in a file's place, and a file in a link's are reported."""
    top = rig.sandbox.workspace
    for name in ("a", "d/b", "d/c", "link"):
        (top / name).unlink()
    (top / "a").symlink_to("/etc/passwd")
    (top / "d" / "b").mkdir()
    os.mkfifo(top / "d" / "c")
    agent(rig, "link")
    (top / "more").unlink()
    rig.write("new")
    rig.sync()
    changed, removed = reported(rig)
    assert changed.startswith("'a', 'd/b', 'd/c' and 1 more were changed in the sandbox")
    assert removed.startswith("'more' was removed in the sandbox, and the sync of ")
    assert "put it there again" in removed


def test_a_link_in_a_folders_place(rig: Rig) -> None:
    """The changed folder is reported, and the link not followed."""
    top = rig.sandbox.workspace
    (top / "d").rename(top / "elsewhere")
    (top / "d").symlink_to("elsewhere")
    rig.write("d/b", "new")
    rig.sync()
    changed, removed = reported(rig)
    assert changed.startswith("'d' was changed")
    assert removed.startswith("'d/b' and 'd/c' were removed")


def test_the_agents_own_file_in_a_new_ones_place(rig: Rig) -> None:
    """One with the same content is not reported."""
    agent(rig, "new")
    agent(rig, "same", "same")
    rig.write("new", "ours")
    rig.write("same", "same")
    rig.sync()
    assert reported(rig)[0].startswith("'new' was in the sandbox with other content, and the sync of ")
    assert len(reported(rig)) == 1


def test_the_warning_stays_for_an_hour_or_until_forced(rig: Rig) -> None:
    """The next sync does not remove it, and it ends by itself."""
    agent(rig, "a")
    rig.write("a", "newer")
    rig.sync()
    rig.write("a", "newest")
    rig.sync()
    assert len(reported(rig)) == 1
    rig.clock.go_on(WARNED_FOR_S)
    assert reported(rig) == []
    agent(rig, "a")
    rig.sync(SyncMode.FORCED)
    assert len(reported(rig)) == 1
    rig.sync(SyncMode.FORCED)
    assert reported(rig) == []


@pytest.mark.parametrize("op", EXECUTION_OPS)
@pytest.mark.parametrize("fault", ["404 always", "500 always", "reset always", "html always", "401 always"])
def test_a_check_that_fails(rig: Rig, op: str, fault: str) -> None:
    """It neither fails nor repeats the sync; it is reported once, and tried again later."""
    rig.emulator.faults.script(f"{op}: {fault}")
    agent(rig, "a")
    rig.write("a", "newer")
    started_s = rig.clock.monotonic_s()
    _, observer = rig.sync()
    assert observer.failures == []
    assert rig.clock.monotonic_s() - started_s < 60
    assert rig.arrived()["a"] == "newer"
    assert len(reported(rig)) == 1
    assert reported(rig)[0].startswith("files in the sandbox could not be checked for changes (")
    asked = len(rig.asked())
    rig.write("a", "newest")
    rig.sync()
    assert not set(EXECUTION_OPS) & set(rig.asked()[asked:])
    rig.emulator.faults.clear()
    ready(rig)
    rig.clock.go_on(60)
    rig.write("a", "again")
    rig.sync()
    assert reported(rig) == []


@pytest.mark.parametrize("op", EXECUTION_OPS[:1] + EXECUTION_OPS[2:])
def test_a_sandbox_that_ends_meanwhile(rig: Rig, op: str) -> None:
    """The initialize reports it, not the check before."""
    rig.emulator.faults.script(f"{op}: gone")
    rig.write("a", "newer")
    failure, _ = rig.fail()
    assert failure.step is ApiStep.INITIALIZE
    assert issubclass(failure.refusal, SandboxNotFound)


@pytest.mark.parametrize("said", ["[]", '["x","done",0]', "null", "{", '[1,["seen"]]'])
def test_other_output_is_ignored(rig: Rig, said: str) -> None:
    """Other programs' output in the sandbox is not used."""
    answer = json.dumps({"status": "completed", "logs": said, "cursor": 0})
    rig.emulator.faults.script(f"execution-logs: json {answer} always")
    rig.write("a", "newer")
    rig.sync()
    assert rig.arrived()["a"] == "newer"
    assert "could not be checked" in reported(rig)[0]


@pytest.mark.parametrize("items", [[[99, "absent"]], [["a", "f"]], [[]], [7], [[0, "f", 1, "a"]], [[0, "what", {}]]])
def test_a_replaced_program(rig: Rig, monkeypatch: pytest.MonkeyPatch, items: list[Any]) -> None:
    """A program that the agent put in the place of syncd's does not fail the sync."""
    monkeypatch.setattr(overwrite_check, "_findings", lambda *_: items)
    rig.write("a", "newer")
    rig.sync()
    assert rig.arrived()["a"] == "newer"
    assert all("could not be checked" in text for text in reported(rig))


def test_a_program_that_never_begins(rig: Rig) -> None:
    """The sync waits for a bounded time; the program may run later, as it changes nothing."""
    rig.emulator.faults.clear()
    rig.sandbox.hold()
    rig.write("a", "newer")
    started_s = rig.clock.monotonic_s()
    rig.sync()
    assert 20 <= rig.clock.monotonic_s() - started_s < 30
    assert "takes longer than 20 s" in reported(rig)[0]
    before = rig.arrived()
    rig.sandbox.start_held()
    rig.sandbox.wait()
    assert rig.arrived() == before


@pytest.mark.parametrize(
    "fault",
    [
        "execution-upload-url: 503",
        "execution-upload-url: reset",
        "execution-upload: 503",
        "execution-upload: reset",
        "execute: 503",
        "execute: 422",
        "execute: reset",
        "execution-logs: 503",
        "execution-logs: 422",
    ],
)
def test_a_failed_check_is_reported_as_such(rig: Rig, fault: str) -> None:
    """It is not reported as a failed deletion; the warning says what was not checked and why."""
    rig.emulator.faults.script(fault)
    rig.write("a", "newer")
    rig.sync()
    (text,) = reported(rig)
    assert "the check of the files there" in text
    assert not {word for word in ("delete", "remov", "list") if word in text}
    assert rig.arrived()["a"] == "newer"


@pytest.mark.parametrize("fault", ["initialize: 503", "initialize: lost", "upload: expired", "upload: reset"])
def test_changes_are_reported_though_the_sync_failed(rig: Rig, fault: str) -> None:
    """Changes found before an initialize without an answer are overwritten by then."""
    rig.emulator.faults.script(fault)
    agent(rig, "a")
    rig.write("more", "newer")
    rig.sync()
    assert [text[:15] for text in reported(rig)] == ["'a' was changed"]


@pytest.mark.parametrize("request_number", range(1, 9))
@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_crash(rig: Rig, monkeypatch: pytest.MonkeyPatch, request_number: int, when: str) -> None:
    """The next process reports nothing wrong, whatever was left behind at any request."""
    exchange, left = rig.client.exchange, [request_number]

    def dies(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and when == "before":
            raise KeyboardInterrupt
        answer = exchange(*args, **options)
        if left[0] == 0:
            raise KeyboardInterrupt
        return answer

    rig.write("a", "newer")
    monkeypatch.setattr(rig.client, "exchange", dies)
    try:
        rig.sync()
    except KeyboardInterrupt:
        rig.restart()
    else:
        assert left[0] > 0
    monkeypatch.undo()
    rig.write("a", "newest")
    rig.sync()
    assert reported(rig) == []
    assert rig.arrived()["a"] == "newest"


def test_a_reset_is_not_reported_as_removed_files(rig: Rig) -> None:
    """A reset whose initialize failed removed the files, not an agent."""
    rig.keys["sandbox"]["deletions"] = "reset"
    rig.restart()
    rig.emulator.faults.script("initialize: 503")
    (rig.workspace / "more").unlink()
    observer = RecordingObserver(rig.clock, ends=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        rig.sync(observer=observer)
    rig.restart()
    rig.sync()
    assert reported(rig) == []


def test_of_many_files_only_local_changes_are_checked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list stays small."""
    monkeypatch.setattr(overwrite_warnings, "MOST_CHECKED", 3)
    agent(rig, "a")
    agent(rig, "d/b")
    rig.write("d/b", "newer")
    rig.sync()
    assert [text[:17] for text in reported(rig)] == ["'d/b' was changed"]


def test_names_of_all_kinds(rig: Rig) -> None:
    """Bytes that are not UTF-8 are reported as the requested path."""
    odd = os.fsdecode(b"caf\xe9\n")
    rig.write(odd, "ours")
    rig.sync()
    assert reported(rig) == []
    agent(rig, odd)
    rig.write("a", "newer")
    rig.sync()
    assert reported(rig)[0].startswith(r"'caf\\xe9\\n' was changed")


def test_switched_off(tmp_path: Path) -> None:
    """There is no further request."""
    with rigged(tmp_path) as rig:
        rig.write()
        rig.sync()
        agent(rig, "a.txt")
        rig.write("a.txt", "newer")
        rig.sync()
        assert not set(EXECUTION_OPS) & set(rig.asked())
        assert reported(rig) == []
