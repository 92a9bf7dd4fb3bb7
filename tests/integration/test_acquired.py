"""A workspace with no sandbox of its own: one is acquired, kept while it lives, and followed by the next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core.errors import KeyRefused, SandboxRefused, TryLater
from syncd.core.waiter import Superseded
from syncd.emulator import RequestRecord, When
from syncd.remote.acquired_sandbox import SPAN_S
from syncd.remote.failure import FailureAction, StepFailed
from syncd.sandbox.provider import AcquiredSandboxStore
from tests.integration.sync_rig import Rig, Witness, rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as it:
        del it.keys["sandbox"]["id"]
        it.keys["sandbox"]["acquire"] = {"servers": ["filesystem", "git"], "ttl_seconds": 7200}
        it.write("a", "1")
        yield it


def sandbox_id(rig: Rig) -> str:
    target = rig.cycle.target
    return target.sandbox_id if target else ""


def arrived(rig: Rig) -> dict[str, str]:
    """The files in the sandbox that is ours now."""
    top = rig.emulator.sandbox(sandbox_id(rig)).workspace
    return {str(file.relative_to(top)): file.read_text() for file in top.rglob("*") if file.is_file()}


def test_one_is_acquired_and_kept(rig: Rig) -> None:
    """Also by the next process, which knows what it holds."""
    assert sandbox_id(rig) == ""
    rig.sync()
    first = sandbox_id(rig)
    assert arrived(rig) == {"a": "1"}
    rig.write("a", "2")
    rig.sync()
    rig.restart()
    outcome, _ = rig.sync()
    assert outcome.sync is None
    assert sandbox_id(rig) == first
    assert arrived(rig) == {"a": "2"}
    assert rig.asked().count("acquire") == 1


def test_the_next_one_is_acquired_before_the_end(rig: Rig) -> None:
    """By its known lifetime, whether or not the process was there all the time; everything is sent to it."""
    rig.write("b", "1")
    rig.sync()
    first = sandbox_id(rig)
    rig.clock.go_on(7000)
    rig.write("a", "2")
    rig.sync()
    assert sandbox_id(rig) == first
    rig.clock.go_on(150)
    outcome, _ = rig.sync()
    assert outcome.sync is not None
    second = sandbox_id(rig)
    assert second != first
    assert arrived(rig) == {"a": "2", "b": "1"}
    rig.restart()
    rig.clock.go_on(7200)
    rig.sync()
    assert sandbox_id(rig) not in (first, second)
    assert arrived(rig) == {"a": "2", "b": "1"}


@pytest.mark.parametrize("op", ["upload-url", "initialize"])
@pytest.mark.parametrize("status", [404, 410])
def test_one_that_is_gone_is_replaced_at_once(rig: Rig, op: str, status: int) -> None:
    """Released by someone, or ended by a clock that we do not have: one sync, and all is in the next one."""
    rig.sync()
    first = sandbox_id(rig)
    rig.clock.go_on(3600)  # the upload URL has ended
    rig.emulator.faults.script(f"{op}: {status}")
    rig.write("a", "2")
    rig.sync()
    assert sandbox_id(rig) != first
    assert arrived(rig) == {"a": "2"}


def test_never_in_a_loop(rig: Rig) -> None:
    """Sandboxes that end as they come: after a few it waits, and says so; then it goes on."""
    rig.emulator.faults.script("upload-url: 404 always")
    for number in range(6):
        failure, _ = rig.fail()
        assert failure.action is FailureAction.RETRY, failure
        assert rig.asked().count("acquire") <= 3, number
    failure, witness = rig.fail()
    assert "too many sandboxes were acquired recently" in str(failure)
    assert failure.action is FailureAction.RETRY
    assert witness.waits == []
    assert rig.asked().count("acquire") == 3
    rig.restart()
    rig.fail()
    assert rig.asked().count("acquire") == 3
    rig.emulator.faults.clear()
    rig.clock.go_on(SPAN_S)
    rig.sync()
    assert arrived(rig) == {"a": "1"}


def test_one_that_came_unanswered_counts(rig: Rig) -> None:
    """Over processes that each die before they hear of theirs: the account is not emptied."""
    rig.emulator.faults.script("acquire: lost always")
    for _ in range(6):
        with pytest.raises((KeyboardInterrupt, StepFailed)):
            rig.sync(witness=Witness(rig.clock, ends=KeyboardInterrupt()))
        rig.restart()
    assert rig.asked().count("acquire") == 3


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, SandboxRefused, "check sandbox.acquire.servers"),
        (401, KeyRefused, "refused the key from the test"),
        (402, SandboxRefused, "pays for no further sandbox (402, Payment Required): check its plan, or release one"),
        (403, KeyRefused, "the key from the test may not acquire"),
        (404, SandboxRefused, "check sandbox.base_url"),
        (422, SandboxRefused, "check sandbox.acquire.servers"),
        (451, SandboxRefused, "check [sandbox.acquire]"),
    ],
)
def test_what_a_person_must_mend(rig: Rig, status: int, kind: type, words: str) -> None:
    """No further one, a wrong name, a wrong key: told as that, also the tenth time; such an answer does not count."""
    rig.emulator.faults.script(f"acquire: {status} always")
    for _ in range(10):
        failure, _ = rig.fail()
        assert type(failure.as_error()) is kind
        assert words in str(failure)
        rig.clock.go_on(1)
    assert rig.asked() == ["acquire"] * 10
    rig.emulator.faults.clear()
    rig.sync()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("409", "no further sandbox now (409, Conflict): release one (`syncd sandbox list`)"),
        ("429", "as many sandboxes as it may, or asks too often (429, Too Many Requests): release one"),
        ("503", "answered the request for a sandbox with 503"),
        ("302", "redirect"),
    ],
)
def test_what_comes_later(rig: Rig, fault: str, words: str) -> None:
    """For as long as there is patience, and it is no sandbox that counts: the first that can be had is taken."""
    rig.emulator.faults.script(f"acquire: {fault} always")
    failure, witness = rig.fail()
    assert words in str(failure)
    assert len(witness.waits) > 5
    rig.emulator.faults.clear()
    rig.sync()
    assert arrived(rig) == {"a": "1"}


def test_no_network_uses_nothing_up(rig: Rig) -> None:
    """Where the API was never reached, nothing was acquired, and nothing is counted."""
    rig.keys["sandbox"]["base_url"] = "http://127.0.0.1:9"
    failure, witness = rig.fail()
    assert "cannot be reached" in str(failure)
    assert len(witness.waits) > 5
    rig.restart()
    (note,) = (rig.folder / "state").rglob("sandbox")
    assert AcquiredSandboxStore(str(note.parent), "http://127.0.0.1:9").load() == (None, [])


def test_what_cannot_be_counted_is_not_acquired(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full disk each new process would acquire one more: none is asked for."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AcquiredSandboxStore, "save", full)
    with pytest.raises(TryLater, match="No space left on device"):
        rig.sync()
    assert rig.asked() == []


@pytest.mark.parametrize("name", ["", ".", "..", "a\\u0000b", "a\\nb"])
def test_a_name_that_is_none(rig: Rig, name: str) -> None:
    """What cannot be the name of a sandbox is never asked for anything; the next answer may be better."""
    rig.emulator.faults.script(f'acquire: json {{"local_sandbox_id": "{name}", "servers": []}}')
    _, witness = rig.sync()
    assert "is invalid" in str(witness.failures[0])
    assert arrived(rig) == {"a": "1"}


@pytest.mark.parametrize("op", ["acquire", "upload-url", "upload", "initialize"])
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_one_that_ends_in_the_middle(rig: Rig, op: str, when: When) -> None:
    """By the clock or by someone's hand, at whatever step: the same sync, or the next one, fills another."""
    rig.sync()
    rig.clock.go_on(7200)
    rig.write("a", "2")
    once = iter([1])

    def end(_: RequestRecord) -> None:
        if next(once, 0):
            for sandbox in rig.emulator.sandboxes():
                sandbox.record.expires_at_s = 0.0

    rig.emulator.faults.on(op, when, end)
    rig.sync()
    rig.emulator.faults.clear()
    rig.write("b", "3")
    rig.sync()
    assert arrived(rig) == {"a": "2", "b": "3"}
    assert rig.asked().count("acquire") <= 3


@pytest.mark.parametrize("ends", [KeyboardInterrupt(), Superseded()])
def test_a_move_that_is_broken_off(rig: Rig, ends: BaseException) -> None:
    """By a stop or by newer changes, while the next sandbox is waited for: nothing is lost, none is used up."""
    rig.sync()
    first = sandbox_id(rig)
    rig.clock.go_on(7200)
    rig.emulator.faults.script("acquire: 503 always")
    for _ in range(5):
        with pytest.raises(type(ends)):
            rig.sync(witness=Witness(rig.clock, ends=ends))
        rig.restart()
    rig.emulator.faults.clear()
    rig.sync()
    assert sandbox_id(rig) not in ("", first)
    assert arrived(rig) == {"a": "1"}


@pytest.mark.parametrize(
    "fault", ["acquire: 503 x2", "acquire: reset", "acquire: html", 'acquire: json {"servers": []}']
)
def test_what_passes_is_waited_out(rig: Rig, fault: str) -> None:
    """As with any other step; one that came without an answer counts among those acquired."""
    _, witness = rig.sync()
    assert witness.failures == []
    rig.restart()
    (rig.folder / "state").rename(rig.folder / "old-state")
    rig.emulator.faults.script(fault)
    _, witness = rig.sync()
    assert witness.failures != []
    assert arrived(rig) == {"a": "1"}


def test_a_wait_can_be_ended(rig: Rig) -> None:
    """By whoever attends it."""
    rig.emulator.faults.script("acquire: 503 always")
    with pytest.raises(KeyboardInterrupt):
        rig.sync(witness=Witness(rig.clock, ends=KeyboardInterrupt()))


def test_newer_changes_shorten_no_wait(rig: Rig) -> None:
    """Someone who types while the API is down does not ask it ever faster: failures in a row count over syncs."""
    rig.emulator.faults.script("acquire: 503 always")
    waits = []
    for number in range(6):
        rig.write("a", f"{number}")
        witness = Witness(rig.clock, ends=Superseded())
        with pytest.raises(Superseded):
            rig.sync(witness=witness)
        waits += witness.waits
    assert waits[3:] == [pytest.approx(8, rel=0.51)] * 3
    assert waits[0] <= 1


def test_a_damaged_note_costs_one_sandbox(rig: Rig) -> None:
    """What was acquired before is left to its end."""
    rig.sync()
    first = sandbox_id(rig)
    rig.restart()
    (note,) = (rig.folder / "state").rglob("sandbox")
    note.write_bytes(b"rubbish")
    rig.sync()
    assert sandbox_id(rig) != first
    assert arrived(rig) == {"a": "1"}


def test_another_api_is_another_book(rig: Rig) -> None:
    """A sandbox of one API means nothing to another."""
    rig.sync()
    rig.restart()
    rig.keys["sandbox"]["base_url"] = rig.emulator.base_url.replace("127.0.0.1", "localhost")
    assert sandbox_id(rig) == ""
