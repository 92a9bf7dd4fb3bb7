"""The agent's saved versions as values: which entries can be saved, and which versions have expired."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from msgspec import Struct, field

from syncd.core.choices import SAVED_BYTES, SAVED_DAYS
from syncd.model.entry import Entry, Kind

_DAY = timedelta(days=1)
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{2,8}")


class Why(StrEnum):
    """The reason for which a version was saved."""

    OVERWRITTEN = "overwritten"
    REMOVED = "removed"
    SANDBOX_ENDED = "sandbox-ended"
    RESET = "reset"
    RELEASED = "released"
    CONFLICT = "conflict"


SentEntry = tuple[Entry, bytes | None]
"""An entry that syncd had sent as a path, with a file's bytes where they are known and small."""


class SavedVersion(Struct, frozen=True):
    """The agent's version of some paths, by path in the order of names, saved at `at` (aware UTC).

    `bases` are what syncd had sent as these paths, as far as it is known and a comparison needs it.
    `days` were counted since, the last of them at `counted_at`; a clock that jumps makes one day at most.
    """

    id: str
    at: datetime
    why: Why
    sandbox_id: str
    counted_at: datetime
    paths: Mapping[str, Entry] = field(default_factory=dict)
    bases: Mapping[str, Entry] = field(default_factory=dict)
    days: int = 0

    @property
    def size_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(path.size_bytes for path in self.paths.values())

    def contents(self) -> dict[bytes, int]:
        """Return the size of each different content, by digest."""
        return {path.digest: path.size_bytes for path in self.paths.values() if path.kind is Kind.FILE}


def version_id(at: datetime, number: int) -> str:
    """Return the id of the version with that number, from 0, of those saved in this second (UTC).

    Ids sort by time: `20261126-040112-00`.
    """
    return f"{at:%Y%m%d-%H%M%S}-{number:02x}"


def saved_at(text: str) -> datetime | None:
    """Return the time (aware UTC) in a version's id; None if the text is no id. An id is safe as a file's name."""
    if _ID.fullmatch(text) is None:
        return None
    try:
        return datetime.strptime(text[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def next_count(days: int, counted_at: datetime, now: datetime) -> tuple[int, datetime]:
    """Return the days that were counted, with the one that has passed since, if any, and when the last one was.

    However much later it is: the machine was off, or its clock is wrong. A clock that was set back counts anew.
    """
    if now < counted_at:
        return days, now
    return (days + 1, now) if now - counted_at >= _DAY else (days, counted_at)


def expired(versions: Iterable[SavedVersion]) -> list[SavedVersion]:
    """Return the versions to drop, the oldest first, of `versions` in any order.

    Those of `SAVED_DAYS` go, then the oldest until the others have at most `SAVED_BYTES`. The newest never goes
    for its size. A content that several versions have is on disk once, so it counts once.
    """
    kept: set[bytes] = set()
    size_bytes, full = 0, False
    dropped = []
    for position, version in enumerate(sorted(versions, key=lambda version: version.id, reverse=True)):
        if version.days >= SAVED_DAYS:
            dropped.append(version)
            continue
        more = {digest: size for digest, size in version.contents().items() if digest not in kept}
        size_bytes += sum(more.values())
        full = full or (position > 0 and size_bytes > SAVED_BYTES)
        if full:
            dropped.append(version)
        else:
            kept.update(more)
    return dropped[::-1]
