"""The rules of a set-up: when a sandbox is to be set up, and what is known of the last run there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.text import one_line

_LONGEST_COMMAND = 60


class SetupState(StrEnum):
    """The states of a sandbox's set-up."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class SetupStatus(Struct, frozen=True):
    """The last set-up of a sandbox: `state` is none, running, done or failed, and `at` is when it began.

    `command` is its command, and `why` says what failed. `exit_code` and `seconds` are null until it has ended, and
    where they are not known.
    """

    state: SetupState = SetupState.NONE
    at: str | None = None
    exit_code: int | None = None
    seconds: float | None = None
    command: str = ""
    why: str = ""


class SetupRecord(Struct, frozen=True):
    """The last run of this command in one sandbox, with the last lines that it printed.

    `is_due`: it is to be run again, as what it depends on has changed since it began, or as it could not be run.
    `has_emptied`: nearly all that was sent was gone while it ran, or after that.
    """

    command: tuple[str, ...]
    status: SetupStatus
    last_lines: tuple[str, ...] = ()
    is_due: bool = False
    has_emptied: bool = False

    def ended(self, why: str, exit_code: int | None = None, seconds: float | None = None) -> SetupRecord:
        """Return it as one that failed with that reason, or that succeeded where there is none."""
        state, rounded = SetupState.FAILED if why else SetupState.DONE, None if seconds is None else round(seconds, 1)
        return replace(self, status=replace(self.status, state=state, why=why, exit_code=exit_code, seconds=rounded))


def begun(command: tuple[str, ...], at: str) -> SetupRecord:
    """Return the record of a run that begins at that time."""
    return SetupRecord(command, SetupStatus(SetupState.RUNNING, at, command=shown_command(command)))


def ended_with(running: SetupRecord, ended: SetupRecord) -> SetupRecord:
    """Return the record of a run that has ended, with what was noted meanwhile.

    One that emptied the sandbox failed: it would do so again. Where that was noted while it ran, and it did not end by
    itself, both may have come from a reset of the sandbox, which is set up anew then.
    """
    is_due, status = ended.is_due or running.is_due, ended.status
    if ended.has_emptied or (running.has_emptied and status.exit_code is not None):
        failed = ended.ended("removed nearly all that was sent", status.exit_code, status.seconds)
        return replace(failed, is_due=is_due, has_emptied=True)
    return replace(ended, is_due=is_due or running.has_emptied)


def setup_due(command: Sequence[str], last: SetupRecord | None) -> bool:
    """Return True if a sandbox that was synced to is to be set up; `last` is the last run there."""
    return bool(command) and (last is None or last.is_due or last.command != command)


def shown_command(command: Sequence[str]) -> str:
    """Return a command for people, as a shell would take it; a long one is cut."""
    return one_line(shlex.join(command), _LONGEST_COMMAND)
