"""A look is two seconds old at most when an initialize is requested, however these passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncd.sandbox.sandbox_state import SandboxState
from tests.integration.sync_rig import rigged
from tests.integration.test_three_sides import AgentRig


@pytest.fixture
def made(tmp_path: Path) -> Iterator[AgentRig]:
    """`a` and `b` are in the sandbox, which keeps what an archive lacks, and `a` was changed here."""
    with rigged(tmp_path) as rig:
        rig.use_defaults()
        made = AgentRig(rig)
        made.edit(a="ours", b="ours")
        made.settle()
        made.edit(a="newer")
        yield made


def once(act: Callable[[], None]) -> Callable[..., None]:
    """Act at the first call alone."""
    left = [act]

    def called(*_: object) -> None:
        if left:
            left.pop()()

    return called


def suspend(made: AgentRig) -> None:
    made.rig.clock.suspend(60)


def pause_of_the_machine(made: AgentRig) -> None:
    """All clocks stand still, and the wall clock is set right afterwards."""
    made.rig.clock.wall += 60


def time_goes_on(made: AgentRig) -> None:
    made.rig.clock.go_on(3)


PASSES = pytest.mark.parametrize("passes", [time_goes_on, suspend, pause_of_the_machine])


def keeps_both(made: AgentRig) -> bool:
    """True if the agent's version is there or saved, and ours is not lost either."""
    made.settle()
    return "theirs" in (made.there("a"), *made.saved.get("a", ())) and made.there("b") == "ours"


@PASSES
@pytest.mark.parametrize("op", ["execute", "execution-logs"])
def test_a_look_by_a_program(made: AgentRig, passes: Callable[[AgentRig], None], op: str) -> None:
    """It counts from the request for the program, which has ended when its answer comes at last."""

    def goes_by() -> None:
        made.rig.sandbox.wait()
        made.agent.write("a", "theirs")
        passes(made)

    made.rig.emulator.faults.on(op, "after", once(goes_by))
    assert keeps_both(made)


@PASSES
@pytest.mark.parametrize("op", ["dump", "download"])
def test_a_look_by_the_archive(made: AgentRig, passes: Callable[[AgentRig], None], op: str) -> None:
    """It counts from the request for the archive, not from the end of its download."""

    def goes_by() -> None:
        made.agent.write("a", "theirs")
        passes(made)

    made.rig.emulator.faults.script("execute: 501 always")
    made.rig.emulator.faults.on(op, "after", once(goes_by))
    assert keeps_both(made)


@PASSES
def test_what_is_written_after_it(
    made: AgentRig, passes: Callable[[AgentRig], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk takes its time to record what is about to be sent: then it is looked at again."""
    mark = SandboxState.mark_uncertain

    def marked(state: SandboxState, *sent: object) -> None:
        mark(state, *sent)
        goes_by()

    @once
    def goes_by() -> None:
        made.agent.write("a", "theirs")
        passes(made)

    monkeypatch.setattr(SandboxState, "mark_uncertain", marked)
    assert keeps_both(made)


def test_an_archive_that_takes_long_each_time(made: AgentRig) -> None:
    """A look by it is repeated once: another one would be no newer."""
    made.rig.emulator.faults.script("execute: 501 always")
    made.rig.emulator.faults.on("download", "after", lambda _: made.rig.clock.go_on(5))
    before = made.rig.asked().count("dump")
    made.rig.sync()
    assert made.there("a") == "newer"
    assert made.rig.asked().count("dump") == before + 2
