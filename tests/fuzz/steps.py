"""The names of steps, by what they need and what they make of a scenario."""

from __future__ import annotations

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
