"""A configuration that changes while an upload is under way: what of it holds at once.

Nobody who makes room for a call, or takes a limit away because an upload of an hour is in the way, wants that upload
begun anew. Who sends something else, or elsewhere, does not want it brought to its end. All else can wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from syncd.core.errors import SyncdError
from syncd.core.settings import Config
from syncd.daemon.signals import Signals
from syncd.remote.bucket import Throttle

_log = logging.getLogger("syncd")


class LiveReload:
    """Looks at the configuration once for each SIGHUP that comes during an upload."""

    def __init__(self, current: Config, read: Callable[[], Config], throttle: Throttle, signals: Signals) -> None:
        self._current = current
        self._read = read
        self._throttle = throttle
        self._signals = signals
        self._seen = signals.reloads_asked

    def ends_upload(self) -> bool:
        """Take a new limit over, and tell whether the upload is to be begun anew; the reload itself comes after it."""
        if self._seen == self._signals.reloads_asked:
            return False
        self._seen = self._signals.reloads_asked
        try:
            new = self._read()
        except SyncdError as failure:
            _log.error("the new configuration is refused, the upload goes on: %s", failure)
            return False
        if (new.workspace, new.sandbox) != (self._current.workspace, self._current.sandbox):
            _log.info("the upload is given up: another one begins under the new configuration")
            return True
        limit = limit_of(new)
        if limit != self._throttle.limit_bytes_per_s:
            self._throttle.limit_bytes_per_s = limit
            _log.info("the upload goes on, %s", f"at most {limit >> 10} KiB a second" if limit else "without a limit")
        return False


def limit_of(config: Config) -> int:
    """The most that uploads take, in bytes a second; 0 is no limit."""
    return config.sync.upload_limit_kib_per_second << 10
