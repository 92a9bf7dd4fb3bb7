"""Decides if the hook runs once more for a sandbox: at least once for each, with a limit of attempts."""

from __future__ import annotations

from msgspec import Struct, structs

# A failed hook may succeed after the next sync; one that always fails needs a person.
MOST_ATTEMPTS = 3


class HookRun(Struct, frozen=True):
    """The hook's last run, for the sandbox `place`. `failure` describes how it failed, empty if it did not."""

    place: str
    command: tuple[str, ...]
    attempts: int
    done: bool = False
    failure: str = ""


def next_attempt(last_run: HookRun | None, place: str, command: tuple[str, ...]) -> HookRun | None:
    """Return the run to record before the hook is run for this sandbox; None if it is not to be run.

    It is recorded before, so that a hook which ends its own daemon is not run without end. A command that was changed
    since it failed starts anew; one that was changed after it succeeded waits for the next sandbox.
    """
    if last_run is None or last_run.place != place:
        return HookRun(place, command, 1)
    if last_run.done:
        return None
    if last_run.command != command:
        return HookRun(place, command, 1)
    if last_run.attempts >= MOST_ATTEMPTS:
        return None
    return structs.replace(last_run, attempts=last_run.attempts + 1)
