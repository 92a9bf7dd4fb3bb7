"""A look is two seconds old at most when an initialize is requested, however these passed."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from syncd.core.waiter import Event
from syncd.sandbox.sandbox_state import SandboxState
from tests.integration.sync_rig import Rig


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """`a` and `b` are in the sandbox, which keeps what an archive lacks, and `a` was changed here."""
    bare.use_defaults()
    bare.edit(a="ours", b="ours")
    bare.settle()
    bare.edit(a="newer")
    return bare


def once(act: Callable[[], None]) -> Callable[..., None]:
    """Act at the first call alone."""
    left = [act]

    def called(*_: object) -> None:
        if left:
            left.pop()()

    return called


def suspend(rig: Rig) -> None:
    rig.clock.suspend(60)


def pause_of_the_machine(rig: Rig) -> None:
    """All clocks stand still, and the wall clock is set right afterwards."""
    rig.clock.wall += 60


def time_goes_on(rig: Rig) -> None:
    rig.clock.go_on(3)


PASSES = pytest.mark.parametrize("passes", [time_goes_on, suspend, pause_of_the_machine])


def keeps_both(rig: Rig) -> bool:
    """True if the agent's version is there or saved, and ours is not lost either."""
    rig.settle()
    return "theirs" in (rig.there("a"), *rig.saved.get("a", ())) and rig.there("b") == "ours"


@PASSES
@pytest.mark.parametrize("op", ["execute", "execution-logs", "dump", "download"])
def test_a_look(rig: Rig, passes: Callable[[Rig], None], op: str) -> None:
    """It counts from the request for the program, or for the archive, and not from when its answer comes at last."""

    def goes_by() -> None:
        rig.sandbox.wait()  # the program has ended by then
        rig.agent.write("a", "theirs")
        passes(rig)

    if op in ("dump", "download"):
        rig.emulator.faults.script("execute: 501 always")
    rig.emulator.faults.on(op, "after", once(goes_by))
    assert keeps_both(rig)


@PASSES
def test_what_is_written_after_it(rig: Rig, passes: Callable[[Rig], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk takes its time to record what is about to be sent: then it is looked at again."""
    mark = SandboxState.mark_uncertain

    def marked(state: SandboxState, *sent: object) -> None:
        mark(state, *sent)
        goes_by()

    @once
    def goes_by() -> None:
        rig.agent.write("a", "theirs")
        passes(rig)

    monkeypatch.setattr(SandboxState, "mark_uncertain", marked)
    assert keeps_both(rig)


def test_an_archive_that_takes_long_each_time(rig: Rig) -> None:
    """A look by it is repeated once: another one would be no newer."""
    rig.emulator.faults.script("execute: 501 always")
    rig.emulator.faults.on("download", "after", lambda _: rig.clock.go_on(5))
    before = rig.asked().count("dump")
    rig.sync()
    assert rig.there("a") == "newer"
    assert rig.asked().count("dump") == before + 2
    assert rig.warnings == {}


def test_a_change_meanwhile(rig: Rig) -> None:
    """It ends no look by the archive beside an upload: the sync after it would meet the next change there."""
    rig.emulator.faults.script("execute: 501 always", "download: delay 0.2 always")
    with rig.client.waiter.superseded_by(lambda: {Event.CHANGE: -inf, Event.REQUEST: -inf}):
        rig.sync()
    assert rig.there("a") == "newer"


def test_nobody_looks_for_the_reason_of_a_look_that_failed(rig: Rig) -> None:
    """What keeps an archive from being extracted is searched for after an initialize alone."""
    rig.set(agent_changes="hold")
    rig.emulator.faults.script("execute: 503 always", "dump: 503 always")
    before = rig.asked().count("execute")
    _, observer = rig.fail()
    tries = len(observer.waits) + 1
    assert tries > 5
    assert rig.asked().count("execute") - before == tries + 1  # and one beside the upload
