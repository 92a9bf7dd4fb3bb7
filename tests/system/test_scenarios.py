"""Random scenarios with the real command end with the sandbox equal to the workspace.

More of it: `python -m tests.fuzz --processes --schedules 100`, and with `--several` for several sandboxes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.generators import generate_syncs
from tests.fuzz.several import run_several
from tests.system.rig import Rig
from tests.system.scenarios import ProcessRun, describe


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 9))])
def test_random_scenarios_lose_nothing(rig: Rig, seed: int) -> None:
    """A random scenario of changes, faults, kills, stops and damage."""
    process_run = ProcessRun(rig, Counter())
    process_run.run(generate_syncs(seed))
    if process_run.lost:
        pytest.fail(describe(process_run, rig), pytrace=False)


@pytest.mark.parametrize("seed", [101, 102, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(12))])
def test_random_stories_of_several_sandboxes_lose_nothing(tmp_path: Path, seed: int) -> None:
    """One to three sandboxes of one workspace, an agent in each, and the account of each version."""
    _, reports, _ = run_several((str(tmp_path), seed))
    assert not reports, reports[0]
