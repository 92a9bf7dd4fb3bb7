"""Random stories with the real command lose no version that anyone wrote.

More of it: `python -m tests.fuzz --several --schedules 100`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.several import run_several


@pytest.mark.parametrize(
    "seed", [101, 102, 104, 113, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(12))]
)
def test_random_stories_lose_nothing(tmp_path: Path, seed: int) -> None:
    """One to three sandboxes of one workspace, an agent in each, kills and faults, and the account of each version."""
    _, reports, _ = run_several((str(tmp_path), seed))
    assert not reports, reports[0]
