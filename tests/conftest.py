"""Rules for every test: no thread outlives it, and nothing of the user's own environment reaches it."""

from __future__ import annotations

import gc
import os
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from syncd.core.clock import SystemClock
from tests.clock import ScriptedClock
from tests.loopback import server_tls

REPO = Path(__file__).resolve().parent.parent

# A busy machine is slow at drawing examples, and at anything else.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Only a test that fails waits for so long.
_GRACE_S = 60.0

# What a login session, a service manager or a company's proxy sets, and what would change how syncd or git behave.
_FOREIGN = (
    "KLAVIS_API_KEY",
    "CREDENTIALS_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
    "DBUS_SESSION_BUS_ADDRESS",  # or a test shows its troubles on the desktop
    "XDG_RUNTIME_DIR",
    "INVOCATION_ID",
    *(name for proxy in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (proxy, proxy.upper())),
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below tests/system, which runs the real command."""
    for item in items:
        if REPO / "tests" / "system" in item.path.parents:
            item.add_marker(pytest.mark.system)


def pytest_collection() -> None:
    """Make no use of the garbage collector while the tests are collected: nothing of them is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Keep it from what stays until the end: a million objects, which it would visit again and again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in _FOREIGN:
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        for name, folder in (("CONFIG", ".config"), ("STATE", ".local/state"), ("CACHE", ".cache")):
            patch.setenv(f"XDG_{name}_HOME", str(home / folder))
        # A person's own ignore patterns or default branch must not decide what git, the referee, says.
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        # A script's background job, or nohup(1), ignores them, and so would each process of a test.
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, usual)
        yield


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    clock = SystemClock()
    deadline = clock.monotonic_s() + _GRACE_S
    started = [thread for thread in threading.enumerate() if thread not in before]
    for thread in started:
        thread.join(max(0.0, deadline - clock.monotonic_s()))
    left = [thread.name for thread in started if thread.is_alive()]
    assert not left, f"threads left behind: {', '.join(left)}"


@pytest.fixture
def far_from_utc() -> Iterator[None]:
    """Set the local time zone 14 hours ahead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "AHEAD-14")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def repo() -> Path:
    """The checkout's top folder."""
    return REPO


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture(scope="session")
def trusted_tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """The TLS context of a server on loopback, and the file of its certificate."""
    return server_tls(tmp_path_factory.mktemp("tls"), "DNS:api.test,DNS:localhost,IP:127.0.0.1")
