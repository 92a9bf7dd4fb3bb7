"""The target of a workspace's syncs: a sandbox that is configured, or one that syncd acquired and will replace."""

from __future__ import annotations

from msgspec import Struct

from syncd.core.clock import stamp

# The next one is acquired, and the work in this one saved, this long before the end, so that no sync runs into it …
MARGIN_S = 60.0
# … but for a short lifetime at most this share of it.
MARGIN_SHARE = 0.1


class Target(Struct, frozen=True):
    """The sandbox's names at its API."""

    base_url: str
    sandbox_id: str
    region: str

    @property
    def owner(self) -> str:
        """The name under which the state has what is known of this sandbox, in any region."""
        return f"{self.base_url} {self.sandbox_id}"

    def same_sandbox(self, other: Target) -> bool:
        """True if both name one sandbox; the region is only the way there."""
        return self.base_url == other.base_url and self.sandbox_id == other.sandbox_id


class AcquiredSandbox(Struct, frozen=True):
    """One acquired sandbox.

    `ends_wall_s` is its end by the wall clock, which goes on between processes; None if it never ends. `servers` are
    the MCP servers' URLs by name.
    """

    sandbox_id: str
    acquired_wall_s: float
    ends_wall_s: float | None
    servers: dict[str, str]


def ends_at(acquired_sandbox: AcquiredSandbox | None) -> str | None:
    """Return the end of an acquired sandbox, as a time of the status; None if it never ends."""
    ends_s = None if acquired_sandbox is None else acquired_sandbox.ends_wall_s
    return None if ends_s is None else stamp(ends_s)


def replace_in_s(acquired_sandbox: AcquiredSandbox, wall_s: float) -> float | None:
    """Return the seconds until the next one should be acquired, 0 if it should be now; None if it never ends.

    It is not known either if the wall clock was set back before its acquisition; then the API's 404 shows the end.
    """
    age_s = wall_s - acquired_sandbox.acquired_wall_s
    if acquired_sandbox.ends_wall_s is None or age_s < 0:
        return None
    life_s = acquired_sandbox.ends_wall_s - acquired_sandbox.acquired_wall_s
    return max(0.0, life_s - margin_s(acquired_sandbox) - age_s)


def margin_s(acquired_sandbox: AcquiredSandbox) -> float:
    """Return the seconds before its end at which the next one is acquired; 0 if it never ends."""
    if acquired_sandbox.ends_wall_s is None:
        return 0.0
    return min(MARGIN_S, MARGIN_SHARE * (acquired_sandbox.ends_wall_s - acquired_sandbox.acquired_wall_s))
