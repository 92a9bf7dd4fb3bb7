"""A warning: a lasting problem and its remedy, which `status` shows until someone fixes it.

Unlike an error it stops nothing. Warnings with the same `key` are about the same problem, even if their text differs.
"""

from __future__ import annotations

from msgspec import Struct


class SyncWarning(Struct, frozen=True):
    """A problem in one line (`what`) and what to do about it (`remedy`); `key` identifies the problem."""

    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what
