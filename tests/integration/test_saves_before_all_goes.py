"""Before all in a sandbox goes, it is looked at once more: for what was written while the last finds were fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from syncd.core.errors import TryLater
from syncd.emulator.sandbox import Execution
from tests.agent import Agent
from tests.integration.sync_rig import rigged
from tests.integration.test_three_sides import AgentRig


class Fetches:
    """The contents that are fetched from a sandbox; each fetch takes ten seconds, in which its agent goes on."""

    def __init__(self, made: AgentRig, monkeypatch: pytest.MonkeyPatch, goes_on: Callable[[int], None]) -> None:
        self.contents: list[list[str]] = []
        self._made = made
        self._export = made.rig.sandbox.export
        self._goes_on = goes_on
        monkeypatch.setattr(made.rig.sandbox, "export", self._exported)

    def _exported(self, execution: Execution, file: BinaryIO) -> None:
        copies = Path(execution.folder, "copies").glob("*")
        self.contents.append(sorted(copy.read_text() for copy in copies))
        self._export(execution, file)
        self._goes_on(len(self.contents))
        self._made.rig.clock.go_on(10)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[AgentRig]:
    """`a` and `b` are in the sandbox, and what a rule excludes; the agent changed `a` and made `new`."""
    with rigged(tmp_path) as rig:
        rig.use_defaults()
        made = AgentRig(rig)
        made.edit(a="ours", b="ours")
        rig.write(".gitignore", "*.log\n")
        made.settle()
        made.agent.write("x.log", "stays there")
        made.agent.write("a", "theirs")
        made.agent.write("new", "theirs, new")
        yield made


def moved(made: AgentRig) -> Agent:
    """Have the next sandbox be another one."""
    other = made.rig.emulator.create_sandbox("next")
    made.set(id="next")
    return Agent(other.workspace)


def test_what_is_written_during_the_fetch(made: AgentRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is saved before the sandbox is left, and nothing is fetched twice."""

    def goes_on(number: int) -> None:
        if number == 1:
            made.agent.write("a", "theirs, later")
            made.agent.write("x.log", "stays there, too")
            made.agent.write("late", "theirs, late")

    fetches = Fetches(made, monkeypatch, goes_on)
    there = moved(made)
    made.rig.sync()
    assert made.saved == {"a": ["theirs", "theirs, later"], "new": ["theirs, new"], "late": ["theirs, late"]}
    assert fetches.contents == [
        ["stays there", "theirs", "theirs, new"],
        ["theirs, late", "theirs, later"],  # by now it is known that the rules exclude x.log
    ]
    assert there.read("b") == b"ours"


def test_what_is_taken_back_or_deleted_meanwhile(made: AgentRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no change any more, and what was saved of it stays saved."""

    def goes_on(_: int) -> None:
        made.agent.write("a", "ours")
        made.agent.delete("new")

    Fetches(made, monkeypatch, goes_on)
    moved(made)
    made.rig.sync()
    assert made.saved == {"a": ["theirs"], "new": ["theirs, new"]}


def test_an_agent_that_does_not_end(made: AgentRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox is left when it comes to rest, and what it wrote until then is saved."""

    def goes_on(number: int) -> None:
        if number <= 7:
            made.agent.write("a", f"theirs: {number}")

    Fetches(made, monkeypatch, goes_on)
    there = moved(made)
    with pytest.raises(
        TryLater, match=r"the sandbox box is not left, as 1 path .* changes faster than it can be saved"
    ):
        made.rig.sync()
    assert not there.exists("b")
    made.rig.sync()
    assert made.saved["a"] == ["theirs", *(f"theirs: {number}" for number in range(1, 8))]
    assert there.read("b") == b"ours"


def test_looks_that_take_long_each_time(made: AgentRig) -> None:
    """A second one is as good as it gets: the sandbox is left."""
    made.rig.emulator.faults.on("execution-logs", "after", lambda _: made.rig.clock.go_on(5))
    there = moved(made)
    made.rig.sync()
    assert made.saved == {"a": ["theirs"], "new": ["theirs, new"]}
    assert there.read("b") == b"ours"


def test_a_sandbox_whose_initialize_replaces_all(made: AgentRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the agent has, and writes during the fetch, is saved before its initialize."""
    made.rig.emulator.faults.script("initialize: replace always")
    made.rig.restart()
    replaces: Any = made.rig.cycle.sandbox
    replaces.partial_archives.prove(["never there 1", "never there 2"])
    Fetches(made, monkeypatch, lambda number: made.agent.write("late", "theirs, late") if number == 1 else None)
    made.edit(b="newer")
    made.rig.sync()
    assert made.saved == {"a": ["theirs"], "new": ["theirs, new"], "late": ["theirs, late"]}
    assert (made.there("a"), made.there("b"), made.there("late")) == ("ours", "newer", None)
