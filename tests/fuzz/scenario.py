"""Scenarios: printed and parsed, and shrunk once one has failed.

A scenario is a list of steps. A step is a name and its arguments, `write('a/f', 300, 17)`. With `@37` before it, it
happens at the 37th injection point of the next sync: before some file is opened, some directory listed, some request
sent. Steps do not depend on each other: a scenario without some of its steps is valid, which `shrink` makes use of.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from tests.fuzz.operations import AGENT_STEPS

COMMANDS = frozenset({"apply", "resolve", "undo", "restore", "release", "diff", "branch"})
"""The commands of the agent's side, each with its trouble last, () for none."""
GIT_STEPS = frozenset({"repository", "home_commits"})
"""What a person does with git; the first one makes a scenario one with repositories."""
READING = frozenset({"diff", "branch"})
"""The commands that leave the workspace as it is."""
WAY_HOME_STEPS = (
    COMMANDS
    | GIT_STEPS
    | {"beside_command", "move_sandbox", "hold_initialize", "late_initialize", "takes", "rest", "follow"}
)
"""The steps that make a scenario one with an account of both sides."""
# Steps that make a scenario differ from the plain ones: see `Checker.is_plain`.
UNUSUAL = frozenset({"settings", "reconfigure", "lasting"}) | AGENT_STEPS | WAY_HOME_STEPS
# Steps that need a running daemon.
DAEMON_STEPS = frozenset(
    {
        "wait_idle",
        "wait_failing",
        "advance",
        "suspend",
        "request_sync",
        "push_force",
        "flush",
        "pause",
        "resume",
        "limit_watches",
        "kill",
        "stop",
        "reload",
        "overflow",
        "watch_fails",
        "delay_events",
        "rest",
        "follow",
    }
)


@dataclass(frozen=True)
class Step:
    """One step. `at`: the injection point of the next sync at which it happens, or None: when its turn comes."""

    name: str
    args: tuple[Any, ...] = ()
    at: int | None = None

    @override
    def __str__(self) -> str:
        when = "" if self.at is None else f"@{self.at} "
        return f"{when}{self.name}({', '.join(map(repr, self.args))})"


Scenario = list[Step]


def parse(text: str) -> Scenario:
    """Parse a printed scenario. A step that is an argument stands for its name and arguments.

    Raises `ValueError`, `SyntaxError`.
    """
    steps = []
    for row in filter(None, map(str.strip, text.splitlines())):
        when, _, rest = row.partition(" ") if row.startswith("@") else ("", "", row)
        name, *args = _words(ast.parse(rest, mode="eval").body)
        steps.append(Step(name, tuple(args), int(when[1:]) if when else None))
    return steps


def _words(call: ast.expr) -> list[Any]:
    """Return the name and the arguments of a call."""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"{ast.unparse(call)!r} is no step of a scenario")
    words: list[Any] = [call.func.id]
    for arg in call.args:
        words += _words(arg) if isinstance(arg, ast.Call) else [ast.literal_eval(arg)]
    return words


def render(scenario: Sequence[Step]) -> str:
    """Print one step a line, for people and for `parse`."""
    return "\n".join(map(str, scenario))


def shrink(scenario: Sequence[Step], fails: Callable[[Scenario], bool], has_time: Callable[[], bool]) -> Scenario:
    """Leave out ever smaller runs of steps, while there is time, and return the shortest scenario that still fails."""
    best = list(scenario)
    run = max(1, len(best) // 2)
    while has_time():
        start, shorter = 0, False
        while start < len(best) and has_time():
            candidate = best[:start] + best[start + run :]
            if candidate and fails(candidate):
                best, shorter = candidate, True
            else:
                start += run
        if run == 1 and not shorter:
            break
        run = max(1, run // 2) if not shorter or run > 1 else 1
    return best
