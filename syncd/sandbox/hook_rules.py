"""Whether an agent is to be told of a sandbox once more: each at least once, none for ever."""

from __future__ import annotations

from msgspec import Struct, structs

# A hook that fails may do better after the next sync; one that fails always is the person's to mend.
MOST_ATTEMPTS = 3


class HookRun(Struct, frozen=True):
    """What the hook was last run for. `place` names the sandbox, `failure` says how the last run went wrong."""

    place: str
    command: tuple[str, ...]
    attempts: int
    done: bool = False
    failure: str = ""


def next_attempt(told: HookRun | None, place: str, command: tuple[str, ...]) -> HookRun | None:
    """What to note down before the hook is run for this sandbox; None: it is not to be run.

    Noted before, so that one which ends its own daemon is not run without end. A command that was changed since it
    failed begins anew; one that was changed after it succeeded waits for the next sandbox.
    """
    if told is None or told.place != place:
        return HookRun(place, command, 1)
    if told.done:
        return None
    if told.command != command:
        return HookRun(place, command, 1)
    if told.attempts >= MOST_ATTEMPTS:
        return None
    return structs.replace(told, attempts=told.attempts + 1)
