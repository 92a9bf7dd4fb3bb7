"""The target of a workspace's syncs: a sandbox, its API, and the region of the bucket."""

from __future__ import annotations

from msgspec import Struct


class Target(Struct, frozen=True):
    """The sandbox's names at its API."""

    base_url: str
    sandbox_id: str
    region: str

    def same_sandbox(self, other: Target) -> bool:
        """True if both name one sandbox; the region is only the way there."""
        return self.base_url == other.base_url and self.sandbox_id == other.sandbox_id
