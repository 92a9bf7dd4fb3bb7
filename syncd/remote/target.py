"""Where a workspace goes: which sandbox, behind which API, by way of which region's bucket."""

from __future__ import annotations

from msgspec import Struct


class Target(Struct, frozen=True):
    """The names under which the API knows the place."""

    base_url: str
    sandbox_id: str
    region: str

    def same_sandbox(self, other: Target) -> bool:
        """Whether both name one sandbox; the region is only the way there."""
        return self.base_url == other.base_url and self.sandbox_id == other.sandbox_id
