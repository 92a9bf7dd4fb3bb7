"""The rig of each system test, which checks at the end that no secret was shown, and that all state is documented."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator import Emulator
from tests.system.rig import KEY, Rig


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
