"""A sandbox that syncd acquired itself: until when it is ours, and how soon the next one may be acquired."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

# The next one is acquired this long before the end, so that no sync runs into it …
MARGIN_S = 60.0
# … but of a short life no more than this share is given away.
MARGIN_SHARE = 0.1
# An account must not be emptied by a mistake, ours or a server's: so many in so long, whatever becomes of them.
MOST_ACQUIRED = 3
SPAN_S = 600.0


class AcquiredSandbox(Struct, frozen=True):
    """One acquired sandbox. `ends_wall_s` is its end by the wall clock, which goes on between processes; None: never.

    `servers` are the MCP servers' URLs by name.
    """

    sandbox_id: str
    acquired_wall_s: float
    ends_wall_s: float | None
    servers: dict[str, str]


def over_in_s(acquired_sandbox: AcquiredSandbox, wall_s: float) -> float | None:
    """Seconds until the next one should be acquired, as the end is near; 0 once it is, None if it has no end.

    A clock that was turned back before the beginning says nothing; then the API's 404 has to.
    """
    if acquired_sandbox.ends_wall_s is None or wall_s < acquired_sandbox.acquired_wall_s:
        return None
    life_s = acquired_sandbox.ends_wall_s - acquired_sandbox.acquired_wall_s
    return max(0.0, acquired_sandbox.ends_wall_s - min(MARGIN_S, MARGIN_SHARE * life_s) - wall_s)


def is_over(acquired_sandbox: AcquiredSandbox, wall_s: float) -> bool:
    """Whether the next one should be acquired."""
    return over_in_s(acquired_sandbox, wall_s) == 0.0


def wait_s(acquired_wall_s: Sequence[float], wall_s: float) -> float:
    """Seconds until one more may be acquired; the first are the moments at which earlier ones were."""
    recent = sorted(at_s for at_s in acquired_wall_s if 0 <= wall_s - at_s < SPAN_S)
    if len(recent) < MOST_ACQUIRED:
        return 0.0
    return recent[-MOST_ACQUIRED] + SPAN_S - wall_s
