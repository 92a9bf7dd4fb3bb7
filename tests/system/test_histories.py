"""Random stories with the real command, histories from outside, and what their checker says of a log written by hand.

More of both: `python -m tests.fuzz --several --schedules 100`, `python -m tests.history`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.several import run_several
from tests.history.__main__ import recorded, told
from tests.history.checker import HOME, THERE, History, Step, Values
from tests.history.peers import TOOLS, running, syncd


def at(time: float, kind: str, side: str = "", new: str = "", old: str = "", *, ok: bool = True) -> Step:
    """A step of a file with one slot. A change is of what its writer had read."""

    def values(token: str) -> Values | None:
        return {"0": token} if token else None

    return Step(kind, side, time, time + 0.5, "f" if side else "", values(new), values(old), values(old), ok)


# Home has writes "a" and then "b"; the agent reads "a", and writes "x" over it.
A, B, X = at(1, "write", HOME, "a"), at(5, "write", HOME, "b", "a"), at(4, "write", THERE, "x", "a")
READ_A = at(3, "read", THERE, "a")
OLD, WANTED, AGENTS = {"0": "a", "1": "c"}, {"0": "b", "1": "c"}, {"0": "a", "1": "x"}
TWO_SLOTS = (
    Step("write", HOME, 1, 1.5, "f", OLD),
    Step("write", HOME, 2, 2.5, "f", WANTED, OLD, OLD),
    Step("write", THERE, 4, 4.5, "f", AGENTS, OLD, OLD),
    at(5, "barrier"),
    Step("read", THERE, 7, 7.5, "f", AGENTS),
)
Y_OVER_B, Y_OVER_X = at(8, "write", THERE, "y", "b"), at(6, "write", THERE, "y", "x")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([A, READ_A, B, at(6, "barrier"), at(7, "read", THERE, "b")], ""),
        ([A, READ_A, B, at(6, "barrier"), at(7, "read", THERE, "a")], "older than what the barrier of 6.000 was for"),
        ([A, READ_A, B, at(6, "barrier", ok=False), at(7, "read", THERE, "a")], ""),
        ([A, READ_A, X, B, at(6, "barrier"), at(7, "read", THERE, "x")], "older than what the barrier"),
        ([A, B, at(6, "barrier"), at(7, "write", THERE, "x", "b"), at(8, "read", THERE, "x")], ""),
        ([A, READ_A, at(5, "delete", HOME, "", "a"), at(6, "barrier"), at(7, "read", THERE, "a")], "deleted before"),
        ([A, READ_A, X, at(5, "delete", HOME, "", "a"), at(6, "barrier"), at(7, "read", THERE, "x")], ""),
        ([A, READ_A, X, B, at(6, "barrier"), at(6.2, "delete", HOME, "", "b"), at(7, "read", THERE, "x")], ""),
        (
            [A, READ_A, B, at(6, "barrier"), at(6.2, "delete", HOME, "", "b"), at(7, "read", THERE, "a")],
            "older than what",
        ),
        ([A, READ_A, X, at(5, "bring_home"), at(6, "read", HOME, "x")], ""),
        ([A, READ_A, X, at(5, "bring_home"), at(6, "read", HOME, "a")], "older than what the agent had"),
        ([A, READ_A, X, at(5, "read", THERE, "a")], "which was replaced at 4.000"),
        ([A, at(2, "read", HOME, "x")], "which nobody had written"),
        ([A, B, at(6, "read", HOME, "a")], "which was replaced at 5.000"),
        # The agent writes one of two slots, over a version that is just being unpacked, or that it had not read.
        ([*TWO_SLOTS[:2], TWO_SLOTS[2]._replace(over=None), *TWO_SLOTS[3:]], ""),
        ([*TWO_SLOTS], "older than what the barrier"),
        ([A, X, at(5, "read", HOME, "x"), at(6, "kill_apply"), at(7, "read", HOME, "a")], ""),
        ([A, X, at(5, "read", HOME, "x"), at(6, "kill_daemon"), at(7, "read", HOME, "a")], "which was replaced"),
        # What is not known to have arrived.
        ([A, READ_A, at(3.2, "kill_daemon"), X, at(5, "read", THERE, "a")], ""),
        ([A, READ_A, at(2, "kill_daemon"), at(3, "barrier"), X, at(5, "read", THERE, "a")], "which was replaced"),
        ([A, READ_A, at(3.2, "kill_daemon"), X, at(5, "bring_home"), at(6, "read", HOME, "a")], ""),
        # The agent's first version comes home: it was overwritten by ours, or by the agent's next one.
        ([X, B, at(6, "read", THERE, "b"), at(7, "read", HOME, "x"), Y_OVER_B, at(9, "read", THERE, "x")], ""),
        ([X, B, Y_OVER_X, at(7, "read", HOME, "x"), at(9, "read", THERE, "x")], "which was replaced"),
    ],
)
def test_what_an_order_explains(steps: list[Step], said: str) -> None:
    """Each rule has a log that breaks it, and one that nearly does."""
    found = [*History([*steps, *([X] if said.startswith("which nobody") else [])], ["x", "y"]).inexplicable()]
    assert len(found) == bool(said), found
    assert said in "".join(found)


@pytest.mark.parametrize(
    ("steps", "kept", "place"),
    [
        ([X, at(9, "final", THERE, "x")], (), "current"),
        ([X, at(6, "read", THERE, "b")], ("x",), "saved"),
        ([X, at(6, "write", THERE, "y", "x"), at(7, "final", THERE, "y")], (), "overwritten"),
        ([X, at(6, "write", HOME, "y", "x")._replace(seen={"0": "a"}), at(7, "final", THERE, "y")], (), "raced"),
        ([X, at(6, "read", THERE, "b"), at(9, "final", THERE, "b")], (), "lost"),
    ],
)
def test_where_a_version_is(steps: list[Step], kept: tuple[str, ...], place: str) -> None:
    """Each version that anyone wrote has one place; only a lost one is a fault, if it lived for longer than is said."""
    history = History([A, B, *steps], kept)
    _, lost = history.places()
    assert [token for _, token, _ in lost if token == "x"] == ["x"] * (place == "lost")
    assert history.places()[0][place] >= 1
    assert [len([line for line in told(history, window_s)[0] if "x is lost" in line]) for window_s in (1.0, 3.0)] == [
        place == "lost",
        0,
    ]


def test_a_history_of_syncd(tmp_path: Path) -> None:
    """A person and an agent write in real time, daemon and `apply` are killed, and no version is lost."""
    with syncd(tmp_path) as tool:
        wrong, figures = told(recorded(tool, tmp_path, 5, 1, 0.1), tool.window_s)
    assert wrong == [], figures
    assert "barrier True" in figures


def test_a_history_of_what_loses(tmp_path: Path) -> None:
    """A loop that copies both ways loses what both sides have written, and the checker says so."""
    with running(TOOLS["copy"], tmp_path) as tool:
        wrong, _ = told(recorded(tool, tmp_path, 3, 1, 0.03), tool.window_s)
    assert any("is lost" in line for line in wrong)


@pytest.mark.parametrize(
    "seed", [101, 102, 104, 113, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(12))]
)
def test_random_stories_lose_nothing(tmp_path: Path, seed: int) -> None:
    """One to three sandboxes of one workspace, an agent in each, kills and faults, and the account of each version."""
    _, reports, _ = run_several((str(tmp_path), seed))
    assert not reports, reports[0]
