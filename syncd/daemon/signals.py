"""The signals of `run`, which its loop takes note of at the next wait; see `core.waiter`.

A wait that polls no signals (for a git that does not answer) must not delay the end: after a while the process exits
without cleaning up. The daemon may be killed at any instant.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from syncd.core.errors import SyncdError
from syncd.core.settings import Config
from syncd.core.waiter import Interrupt
from syncd.remote.bucket import Throttle

# At most five seconds may pass from the signal to the exit.
_EXIT_AFTER_S = 4.0


class Signals:
    """The signals of `run`: TERM and INT end it, HUP reloads, USR1 syncs now."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._over = threading.Event()
        self.reload = False
        self.reloads = 0
        self.sync_now = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install the handlers for the block, which the main thread must enter."""
        handlers = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self.reload_now,
            signal.SIGUSR1: self._sync_now,
        }
        with self._interrupt.handling(handlers):
            try:
                yield
            finally:
                self._over.set()

    def _stop(self, *_: object) -> None:
        if not self._interrupt.requested:
            self._interrupt.request()
            with contextlib.suppress(RuntimeError):  # no more threads are allowed
                # Not a `threading.Thread`: it takes locks, which the code that the signal interrupted may hold.
                _thread.start_new_thread(self._exit_late, ())

    def _exit_late(self) -> None:
        if not self._over.wait(_EXIT_AFTER_S):
            os._exit(0)

    def reload_now(self, *_: object) -> None:
        """Have the configuration read anew, as a SIGHUP does."""
        self.reload = True
        self.reloads += 1

    def _sync_now(self, *_: object) -> None:
        self.sync_now = True


_log = logging.getLogger("syncd")


class LiveReload:
    """Reads the configuration once for each SIGHUP that comes during an upload.

    A new upload limit holds at once, and the upload goes on: an upload of an hour must not begin anew because of a
    limit. Another workspace, other rules or another sandbox end it. All other keys wait for its end.
    """

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
        limit = new.sync.upload_limit_bytes_per_s
        if limit != self._throttle.limit_bytes_per_s:
            self._throttle.limit_bytes_per_s = limit
            _log.info("the upload goes on, %s", f"at most {limit >> 10} KiB a second" if limit else "without a limit")
        return False


def _sent(config: Config) -> tuple[object, ...]:
    """The keys that decide what is sent, and where to."""
    return config.workspace, config.sandbox, config.always_ignored
