"""Progress without a terminal is a few lines of text; on a terminal a thread draws it until the end."""

from __future__ import annotations

import pytest

from syncd.cli.progress.display import ProgressDisplay
from syncd.sync.status_document import State
from tests.clock import ScriptedClock

_MIB = 1 << 20


def test_a_log_gets_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """It gets one line a stage, one every half minute of a long stage, and one for each failure."""
    clock = ScriptedClock()
    with ProgressDisplay(clock) as progress:
        progress.stage(State.SNAPSHOTTING)
        for files in range(10):
            progress.stage(State.SNAPSHOTTING)  # repeated, as each scan of a follow-up does
            progress.packed(files, 10, files * _MIB, 10 * _MIB)
            clock.go_on(1)
        progress.stage(State.UPLOADING)
        for second in range(70):
            progress.sent(second * _MIB, 100 * _MIB)
            clock.go_on(1)
        progress.note("the bucket answered 503; trying again in 1.0 s")
        progress.stage(State.INITIALIZING)
    assert capsys.readouterr().err.splitlines() == [
        "packaging …",
        "uploading …",
        "uploading: 30/100 MiB, 1.0 MiB/s, 1:10 left",
        "uploading: 60/100 MiB, 1.0 MiB/s, 0:40 left",
        "the bucket answered 503; trying again in 1.0 s",
        "initializing the sandbox …",
    ]


def test_it_is_silent_at_first(capsys: pytest.CaptureFixture[str]) -> None:
    """What is over sooner is not shown, but a failure is; later the work of the moment is."""
    clock = ScriptedClock()
    progress = ProgressDisplay(clock, silent_s=1.0)
    progress.stage(State.SNAPSHOTTING)
    progress.note("no network: look; trying again in 1.0 s")
    progress.stage(State.UPLOADING)
    assert capsys.readouterr().err.splitlines() == ["no network: look; trying again in 1.0 s"]
    clock.go_on(1)
    progress.sent(0, 100 * _MIB)
    progress.sent(1, 100 * _MIB)
    assert capsys.readouterr().err.splitlines() == ["uploading …"]


def test_the_speed_of_the_last_upload() -> None:
    """It is that of the successful attempt, and unknown for none or one without duration."""
    clock = ScriptedClock()
    progress = ProgressDisplay(clock)
    assert progress.upload_bytes_per_s is None
    progress.stage(State.UPLOADING)
    clock.go_on(0.5)
    progress.sent(10 * _MIB, 10 * _MIB)
    assert progress.upload_bytes_per_s is None
    clock.go_on(60)
    progress.sent(0, 10 * _MIB)
    clock.go_on(4)
    progress.sent(10 * _MIB, 10 * _MIB)
    assert progress.upload_bytes_per_s == pytest.approx(2.5 * _MIB)
    assert progress.doing_now == "uploading"
