"""A signed upload URL and its expiry: it is used until then, across restarts too.

It expires exactly at `X-Goog-Date` + `X-Goog-Expires` (Google Cloud Storage, "Signed URLs", V4 query parameters; names
in any case), in the server's time. The answer with the URL carries the server's time, so the expiry is kept as a second
of this machine's boottime clock, which goes on in suspend and cannot be set.

The database is the one place where a signed URL is written. It is 0600 in a 0700 folder, and the URL expires.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from syncd.core.clock import Clock
from syncd.remote.target import Target
from syncd.store.state_db import Record, StateDb

# No upload begins with a URL this close to its expiry: requests take time to arrive, and clocks differ by seconds.
MARGIN_S = 30.0
# … but a URL of a few seconds (a test, an odd server) is still used for most of them.
MARGIN_SHARE = 0.1
# No signed URL is valid for longer than a week; a longer lifetime is a server's mistake.
LONGEST_S = 604_800.0


class UploadUrl(Struct, frozen=True):
    """One signed URL. `ends_s` and `life_s` are seconds of boottime; a `repr` never holds the URL itself."""

    url: str
    ends_s: float
    life_s: float

    def __repr__(self) -> str:
        return f"UploadUrl(ends_s={self.ends_s:.0f}, life_s={self.life_s:.0f})"


def upload_url_from(
    url: str, expires_in_minutes: int, server_wall_s: float | None, answered_s: float, wall_s: float
) -> UploadUrl:
    """Return the upload URL of an answer that came at `answered_s` (boottime).

    `server_wall_s` is the answer's `Date`, which relates the URL's own times to this machine's clock; without it, this
    machine's wall clock is used. Without valid times in the URL, `expires_in_minutes` counts.
    """
    times = _signed_times(url)
    if times is None:
        life_s = 60.0 * max(0, min(expires_in_minutes, int(LONGEST_S / 60)))
        return UploadUrl(url, answered_s + life_s, life_s)
    signed_s, life_s = times
    server_s = server_wall_s if server_wall_s is not None else wall_s
    # The URL was signed before the answer, and no server answers with an expired one: a clock that says otherwise is
    # wrong, and with it each upload would ask for a URL of its own.
    age_s = server_s - signed_s
    return UploadUrl(url, answered_s + life_s - (age_s if 0.0 < age_s < life_s else 0.0), life_s)


def is_usable(upload_url: UploadUrl, now_s: float) -> bool:
    """True if an upload may begin with this URL at boottime `now_s`: the bucket checks its expiry at the begin."""
    return now_s < upload_url.ends_s - min(MARGIN_S, MARGIN_SHARE * upload_url.life_s)


def is_expired(upload_url: UploadUrl, now_s: float) -> bool:
    """True if the URL has expired; a connection that was cut then is no network fault."""
    return now_s >= upload_url.ends_s


def _signed_times(url: str) -> tuple[float, float] | None:
    try:
        query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
        signed = datetime.strptime(query["x-goog-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        life_s = min(float(int(query["x-goog-expires"])), LONGEST_S)
    except (KeyError, ValueError, OverflowError):
        return None
    return (signed.timestamp(), life_s) if life_s > 0 else None


class _UploadUrlRecord(Struct):
    region: str
    url: str
    ends_wall_s: float
    life_s: float


class UploadUrlStore:
    """Keeps the upload URL of one sandbox, with its expiry by the wall clock, which alone goes on between processes."""

    def __init__(self, db: StateDb, target: Target, clock: Clock) -> None:
        self._record = Record(db, "upload_url", _UploadUrlRecord, "a new upload URL is asked for", target.owner)
        self._region = target.region
        self._clock = clock

    def load(self) -> UploadUrl | None:
        """Return the URL, if a valid one for this region is kept."""
        record = self._record.load()
        if record is None:
            return None
        left_s = record.ends_wall_s - self._clock.wall_s()
        if record.region != self._region or not 0 < left_s <= record.life_s:
            return None
        return UploadUrl(record.url, self._clock.boottime_s() + left_s, record.life_s)

    def save(self, upload_url: UploadUrl) -> None:
        """Keep the URL. Raises `OSError`."""
        ends_wall_s = self._clock.wall_s() + upload_url.ends_s - self._clock.boottime_s()
        self._record.save(_UploadUrlRecord(self._region, upload_url.url, ends_wall_s, upload_url.life_s))

    def forget(self) -> None:
        """Remove a refused URL. If the record stays, the next process finds that out with one request."""
        with contextlib.suppress(OSError):
            self._record.remove()
