"""The rig of the emulator's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.emulator_rig import EmulatorRig, started_rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[EmulatorRig]:
    """A started emulator."""
    with started_rig(tmp_path / "data") as rig:
        yield rig
