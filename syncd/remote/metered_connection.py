"""Tells if NetworkManager calls this machine's connection metered, as that of a phone.

It is asked once, and again when the bus reports that something about it has changed, it started or it ended: an idle
daemon does not need to poll. Without a system bus, NetworkManager or its answer, the connection is not metered.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from syncd.core.clock import Clock

if TYPE_CHECKING:
    from syncd.core.dbus import MessageBus

_log = logging.getLogger("syncd")

# For all messages of a call together: a bus answers within milliseconds.
REPLY_TIMEOUT_S = 1.0

_NAME = "org.freedesktop.NetworkManager"
_PATH = "/org/freedesktop/NetworkManager"
_SIGNALS = (
    f"type='signal',sender='{_NAME}',path='{_PATH}',member='PropertiesChanged',arg0='{_NAME}'",
    f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{_NAME}'",
)
# NMMetered of NetworkManager's D-Bus API: yes, and guessed from the kind of connection.
_METERED = (1, 3)


def is_metered(answer: Sequence[Any]) -> bool:
    """True if an answer to the question for the property `Metered` says so; that of an error is empty."""
    match answer:
        case [("u", value)]:
            return value in _METERED
    return False


class MeteredConnection:
    """The machine's connection, as NetworkManager tells. With `environ` None it is not asked: nothing is metered."""

    def __init__(self, environ: Mapping[str, str] | None, clock: Clock) -> None:
        self._environ = environ
        self._clock = clock
        self._opened = ExitStack()
        self._bus: MessageBus | None = None
        self._question: int | None = None
        self.is_metered = False

    def connect(self) -> bool:
        """Connect to the bus and ask, if that is not done yet. True if it was done now, False too if it cannot be."""
        if self._environ is None or self._bus is not None:
            return False
        from syncd.core.dbus import connected, system_addresses  # noqa: PLC0415 - only where it is asked for

        with self._closed_on_failure():
            addresses, until_s = system_addresses(self._environ), self._clock.monotonic_s() + REPLY_TIMEOUT_S
            self._bus = self._opened.enter_context(connected(addresses, self._clock, until_s))
            for rule in _SIGNALS:
                self._bus.subscribe(rule)
            self._ask(self._bus)
            while self._question is not None:
                self._receive(self._bus)
        return self._bus is not None

    def filenos(self) -> list[int]:
        """The descriptors to poll."""
        return [] if self._bus is None else [self._bus.fileno()]

    def handle(self, ready: Collection[int]) -> None:
        """Note what the bus has sent, if its descriptor is ready."""
        if self._bus is not None and self._bus.fileno() in ready:
            with self._closed_on_failure():
                self._bus.wait_until(self._clock.monotonic_s() + REPLY_TIMEOUT_S)
                self._receive(self._bus)

    def close(self) -> None:
        """Close the connection to the bus."""
        self._bus = self._question = None
        self._opened.close()

    def _ask(self, bus: MessageBus) -> None:
        self._question = bus.ask_property(_PATH, _NAME, "Metered")

    def _receive(self, bus: MessageBus) -> None:
        for message in bus.received():
            if message.answers is None:
                self._ask(bus)
            elif message.answers == self._question:
                self._question = None
                self._learn(message.body)

    def _learn(self, answer: Sequence[Any]) -> None:
        before, self.is_metered = self.is_metered, is_metered(answer)
        if self.is_metered and not before:
            _log.info("the connection is metered: syncing waits for another one; `syncd push` syncs all the same")
        elif before and not self.is_metered:
            _log.info("the connection is not metered any more: syncing goes on")

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        """Give the bus up if it fails, or something else answers there."""
        try:
            yield
        except Exception as failure:  # noqa: BLE001 - nothing that answers there may end the daemon
            _log.debug("nobody tells if the connection is metered: %s", str(failure) or type(failure).__name__)
            self.close()
            self._learn(())
