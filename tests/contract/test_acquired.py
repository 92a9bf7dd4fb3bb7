"""A workspace with no sandbox of its own: one is acquired, kept while it lives, and followed by the next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from syncing import Rig, Witness, rigged

from syncd.base.errors import KeyRefused, SandboxRefused
from syncd.effects.failure import StepFailed
from syncd.policy.tenancy import SPAN_S
from syncd.policy.verdict import Verdict


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
        rig.fail()
        assert rig.asked().count("acquire") <= 3, number
    failure, witness = rig.fail()
    assert "end too soon" in str(failure)
    assert failure.verdict is Verdict.RETRY
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
    ("fault", "kind"),
    [
        ("acquire: 401", KeyRefused),
        ("acquire: 402", SandboxRefused),
        ("acquire: 422", SandboxRefused),
        ("acquire: 404", SandboxRefused),
    ],
)
def test_what_a_person_must_mend(rig: Rig, fault: str, kind: type) -> None:
    """No further one, a wrong name, a wrong key: told as that, once."""
    rig.emulator.faults.script(fault)
    failure, _ = rig.fail()
    assert type(failure.as_error()) is kind
    assert rig.asked() == ["acquire"]


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
