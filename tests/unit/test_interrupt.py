"""Signals end waits and interrupt nothing; the state and spool folders."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from syncd.core.clock import SystemClock
from syncd.core.directories import directories_for
from syncd.core.errors import Stop
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.waiter import Waiter
from tests.clock import ScriptedClock


@pytest.fixture(autouse=True)
def sigint_enabled() -> Iterator[None]:
    """Enable SIGINT: a shell starts background jobs, and so these tests, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class SignalledClock(SystemClock):
    """A clock by which a signal comes after a wait's last look at what was requested, and before the wait itself."""

    def __init__(self, signalled: Callable[[], None]) -> None:
        self.signalled = signalled

    def poll(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        self.signalled()
        return super().poll(poll, seconds)


def to_another_thread() -> None:
    """Have another thread receive the signal, as the kernel may, once this one waits."""
    threading.Timer(0.05, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()


@pytest.mark.parametrize("signalled", [lambda: signal.raise_signal(signal.SIGINT), to_another_thread])
def test_a_signal_that_interrupts_no_call_ends_the_wait(signalled: Callable[[], None]) -> None:
    """It comes in the instant before the wait, or in another thread."""
    clock, interrupt = SignalledClock(signalled), Interrupt()
    started_s = clock.monotonic_s()
    with pytest.raises(Stop), interrupting(interrupt):
        Waiter(interrupt, clock).sleep(20)
    assert clock.monotonic_s() - started_s < 10


def test_a_signal_that_is_ignored_stays_so() -> None:
    """A shell starts background jobs with SIGINT ignored: Ctrl-C is meant for others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt = Interrupt()
    with interrupting(interrupt):
        signal.raise_signal(signal.SIGINT)
    assert not interrupt.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_signal_outside_of_a_wait_raises_at_the_next_one() -> None:
    """Two signals during a file's update raise nothing; the next check does, and no wait begins."""
    clock, interrupt = ScriptedClock(), Interrupt()
    with interrupting(interrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        for _ in range(2):  # the clean-up waits for nothing either
            with pytest.raises(Stop):
                Waiter(interrupt, clock).sleep(5)
        with pytest.raises(Stop):
            interrupt.check()
    assert clock.slept == []


@pytest.mark.parametrize(
    ("environ", "state", "spool"),
    [
        ({}, "~/.local/state/syncd", "~/.cache/syncd"),
        ({"XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c"}, "/s/syncd", "/c/syncd"),
        ({"XDG_STATE_HOME": "s", "XDG_CACHE_HOME": ""}, "~/.local/state/syncd", "~/.cache/syncd"),
        ({"STATE_DIRECTORY": "/var/lib/x", "CACHE_DIRECTORY": "/var/cache/x"}, "/var/lib/x", "/var/cache/x"),
        ({"STATE_DIRECTORY": "/var/lib/x:/var/lib/y", "XDG_STATE_HOME": "/s"}, "/var/lib/x", "~/.cache/syncd"),
    ],
)
def test_folders(environ: dict[str, str], state: str, spool: str) -> None:
    """A service's folders come first, then the user's; a relative path is ignored."""
    folders = directories_for("/srv/my project", environ)
    assert os.path.dirname(folders.state) == os.path.expanduser(state)
    assert os.path.dirname(folders.spool) == os.path.expanduser(spool)
