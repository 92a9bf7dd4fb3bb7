"""A standing trouble and its remedy: what `status` shows as a warning until someone mends it.

Unlike an error it stops nothing. The same `key` is the same trouble, however its words change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SyncWarning:
    """`what` is one line for people, `remedy` what they can do about it; `key` tells repeats from news."""

    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what
