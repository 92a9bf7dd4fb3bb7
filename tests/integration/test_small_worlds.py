"""A sample of the small worlds; all of them: `python -m tests.fuzz --worlds 1`, some hours."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from syncd.sandbox.remote_changes import RemoteChanges
from tests.fuzz.runner import run, run_world
from tests.fuzz.scenario import parse
from tests.fuzz.small_worlds import COUNT

_SAMPLE = 12


@pytest.mark.parametrize("number", range(7, COUNT, COUNT // _SAMPLE))
def test_a_small_world_loses_nothing(tmp_path: Path, number: int) -> None:
    """Wherever the daemon dies, ordinary syncs end with both sides equal, and each version is somewhere."""
    _, reports, _ = run_world((str(tmp_path), number))
    assert not reports, reports[0]


_EDITED_ON_BOTH_SIDES = """
settings('mirror', 'auto', 0, 0, 1.0, 'save')
write('p', 8, 1)
rest(1.0)
wait_idle()
agent_writes('p', 3)
die_at_commit(2, 'after')
write('p', 8, 2)
wait_idle()
"""


def test_the_worlds_notice_a_version_that_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails where nothing is saved, and a daemon really dies at the commit that is named."""
    figures: Counter[str] = Counter()
    assert not run(tmp_path / "whole", parse(_EDITED_ON_BOTH_SIDES), figures).lost
    assert figures["kills"] == 1
    monkeypatch.setattr(RemoteChanges, "save", lambda *_: frozenset())
    assert run(tmp_path / "broken", parse(_EDITED_ON_BOTH_SIDES), Counter()).lost
