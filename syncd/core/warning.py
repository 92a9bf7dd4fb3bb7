"""A warning, apart from the errors, which commands load before all else and without msgspec."""

from __future__ import annotations

from msgspec import Struct


class SyncWarning(Struct, frozen=True):
    """A problem in one line (`what`) and what to do about it (`remedy`), which `status` shows until it is mended.

    Unlike an error it stops nothing. Warnings with the same `key` are about one problem, even if their text differs.
    """

    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what
