"""Whatever is done to a workspace, the daemon, the network and the sandbox: the real command makes both sides equal.

More of it: `python -m tests.fuzz --processes --schedules 100`.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.fuzz.scenario import story
from tests.system.rig import Rig
from tests.system.scenarios import Life, told_of


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost(rig: Rig, seed: int) -> None:
    """A random story of changes, faults, kills, stops and harms."""
    life = Life(rig, Counter())
    life.live(story(seed))
    if life.lost:
        pytest.fail(told_of(life, rig), pytrace=False)
