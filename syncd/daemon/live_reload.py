"""Applies a configuration that is reloaded while an upload is under way.

A new upload limit holds at once, and the upload goes on: an upload of an hour must not begin anew because of a limit.
Another workspace, other rules or another sandbox end the upload. All other keys wait for its end.
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
    """Reads the configuration once for each SIGHUP that comes during an upload."""

    def __init__(self, current: Config, read: Callable[[], Config], throttle: Throttle, signals: Signals) -> None:
        self._current = current
        self._read = read
        self._throttle = throttle
        self._signals = signals
        self._reloads_seen = signals.reloads

    def ends_upload(self) -> bool:
        """Apply a new limit. True if the upload is to begin anew; the reload itself comes after it."""
        if self._reloads_seen == self._signals.reloads:
            return False
        self._reloads_seen = self._signals.reloads
        try:
            everything = self._read()
            if self._current.sandbox_name not in everything.sandboxes:
                return True
            new = everything.for_sandbox(self._current.sandbox_name)
        except SyncdError as failure:
            _log.error("the new configuration is refused, the upload goes on: %s", failure)
            return False
        if _sent(new) != _sent(self._current):
            _log.info("the upload is cancelled: another one begins with the new configuration")
            return True
        limit = limit_of(new)
        if limit != self._throttle.limit_bytes_per_s:
            self._throttle.limit_bytes_per_s = limit
            _log.info("the upload goes on, %s", f"at most {limit >> 10} KiB a second" if limit else "without a limit")
        return False


def _sent(config: Config) -> tuple[object, ...]:
    """The keys that decide what is sent, and where to."""
    return config.workspace, config.sandbox, config.always_ignored


def limit_of(config: Config) -> int:
    """The upload limit in bytes a second; 0: none."""
    return config.sync.upload_limit_kib_per_second << 10
