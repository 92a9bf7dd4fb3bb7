"""The rig of each system test, which checks at the end that no secret was shown, and that all state is documented."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.emulator import Emulator
from tests.system.machine import Machine
from tests.system.rig import KEY, Rig
from tests.system.service_manager import ServiceManager
from tests.system.service_rig import make_home


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A workspace, a sandbox and the command; at the end no process is left and nothing secret was shown."""
    with Emulator(tmp_path / "cloud", api_key=KEY) as emulator:
        rig = Rig(tmp_path, emulator)
        try:
            yield rig
        finally:
            rig.close()
        leaks = rig.leaks()
        assert not leaks, "\n".join(leaks)
        assert rig.undocumented() == []


@pytest.fixture
def manager(rig: Rig) -> Iterator[ServiceManager]:
    """A service manager that the daemon reports to; it asks for pings if a test sets $WATCHDOG_USEC."""
    rig.environ["NOTIFY_SOCKET"] = str(rig.home / "notify")
    with closing(ServiceManager(rig.home / "notify")) as manager:
        yield manager


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with syncd in a user's home, for all tests of the service."""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "home").mkdir()
    make_home(folder / "home")
    machine = Machine(folder)
    yield machine
    machine.close()
