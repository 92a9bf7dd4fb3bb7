"""Signals interrupt waits and nothing else; the state and spool folders, and formatted times."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from syncd.core.clock import SystemClock
from syncd.core.directories import directories_for
from syncd.core.errors import Stop
from syncd.core.interrupt import Interrupt, interrupting


@pytest.fixture(autouse=True)
def sigint_enabled() -> Iterator[None]:
    """Enable SIGINT: a shell starts background jobs, and so these tests, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def ready() -> Iterator[threading.Event]:
    """Set by the main thread before it begins to wait; then another thread receives the signal."""
    ready = threading.Event()

    def receive_signal() -> None:
        assert ready.wait(10)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    other = threading.Thread(target=receive_signal)
    other.start()
    yield ready
    ready.set()
    other.join()


def test_a_signal_that_did_not_end_the_wait_is_sent_again(ready: threading.Event) -> None:
    """If another thread received the signal, or it came just before the wait, it is sent again."""
    clock, interrupt = SystemClock(), Interrupt()
    started_s = clock.monotonic_s()
    with pytest.raises(Stop), interrupting(interrupt), interrupt.region():  # noqa: PT012 - the wait has to come after
        ready.set()
        select.select([], [], [], 20)
    assert clock.monotonic_s() - started_s < 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_is_lost_is_raised_again() -> None:
    """The interpreter ignores exceptions of a finalizer; the next wait raises `Stop` again."""

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    interrupt = Interrupt()
    with interrupting(interrupt):
        with interrupt.region():
            Finalized()
        assert interrupt.requested
        with pytest.raises(Stop), interrupt.region():
            raise AssertionError("not entered")


def test_a_signal_that_is_ignored_stays_so() -> None:
    """A shell starts background jobs with SIGINT ignored: Ctrl-C is meant for others."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupt = Interrupt()
        with interrupting(interrupt), interrupt.region():
            signal.raise_signal(signal.SIGINT)
        assert not interrupt.requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_outside_of_a_region_raises_at_the_next_check() -> None:
    """A signal during a file's update raises nothing; the next check does."""
    interrupt = Interrupt()
    interrupt.request()
    with pytest.raises(Stop):
        interrupt.check()


def test_a_signal_inside_a_region_raises_at_once() -> None:
    """A signal ends the wait; a second one does not interrupt the clean-up."""
    interrupt = Interrupt()
    with pytest.raises(Stop), interrupt.region():  # noqa: PT012 - what comes after the first is the point
        try:
            interrupt.request()
        finally:
            interrupt.request()
    interrupt.request()
    assert interrupt.requested


def test_a_region_after_the_request_is_not_entered() -> None:
    """A signal just before a wait ends that wait."""
    interrupt = Interrupt()
    interrupt.request()
    entered = []
    with pytest.raises(Stop), interrupt.region():
        entered.append(1)
    assert not entered


def test_regions_nest() -> None:
    """The end of an inner region does not disarm the outer one; the end of the outer one does."""
    interrupt = Interrupt()
    with pytest.raises(Stop), interrupt.region():  # noqa: PT012 - the inner region is the point
        with interrupt.region():
            pass
        interrupt.request()
    calm = Interrupt()
    with calm.region():
        pass
    calm.request()


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


def test_each_workspace_has_its_own_folders() -> None:
    """Workspaces of the same name in different folders share nothing, and any name makes a valid folder name."""
    odd = "/srv/.. \udcff\n" + "x" * 300
    names = {os.path.basename(directories_for(path, {}).state) for path in ("/a/p", "/b/p", odd, "/srv/...", "/srv/ü")}
    assert len(names) == 5
    assert all(name.isascii() and name.isprintable() and len(name) < 60 and " " not in name for name in names)
