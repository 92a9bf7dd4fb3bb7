"""The status of a running sync: progress, speed and start; and when the desktop is notified."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from syncd.core.errors import SyncWarning
from syncd.core.settings import check_config
from syncd.report.status_publisher import RunFacts, StatusPublisher, WorkspaceStatus
from syncd.report.status_store import read_document
from syncd.sync.status_document import SandboxStatus, State, Status
from syncd.sync.work_saver import UNSAVED
from tests.clock import ScriptedClock


@pytest.fixture
def status(tmp_path: Path, clock: ScriptedClock) -> WorkspaceStatus:
    config = check_config({"workspace": {"path": "/work"}, "sandbox": {"id": "box"}})
    sandbox = SandboxStatus(name="main", id="box", base_url="https://api.example")
    return WorkspaceStatus(config, str(tmp_path), RunFacts(1), clock=clock, environ={}, sandboxes=[sandbox])


@pytest.fixture
def publisher(status: WorkspaceStatus) -> StatusPublisher:
    (publisher,) = status.publishers
    return publisher


def shown(folder: Path) -> Status:
    """Return the status as a reader gets it."""
    status = read_document(str(folder))
    assert status is not None
    return status


def test_an_unchanged_status_is_not_written(publisher: StatusPublisher, tmp_path: Path) -> None:
    """So an idle daemon causes no disk activity."""
    publisher.enter(State.WATCHING)
    file = tmp_path / "status.json"
    before = file.stat().st_ino
    publisher.publish()
    assert file.stat().st_ino == before
    publisher.enter(State.DEBOUNCING)
    assert shown(tmp_path).state is State.DEBOUNCING
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_warning_is_logged_when_it_comes_and_when_it_is_over(
    publisher: StatusPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    """Once each, by what happened, as no person knows its key."""
    caplog.set_level("INFO")
    warning = SyncWarning("synced:hook", "the program failed", "correct it")
    for warnings in ([warning], [warning], [], []):
        publisher.warn(warnings)
    assert caplog.messages == ["the program failed: correct it", "resolved: the program failed"]


def test_what_is_lost_of_another_sandbox_is_told_too(
    publisher: StatusPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the warning about the one before is still there: each one, once."""
    told: list[str] = []
    publisher.notifier.unsaved = told.append  # type: ignore[method-assign]
    first, second = (SyncWarning(UNSAVED, f"the work in {name} could not be saved", "") for name in ("one", "two"))
    for warning in (first, first, second, second):
        publisher.warn([warning])
    assert told == [first.what, second.what]
    assert caplog.messages == [str(first), str(second)]


def test_a_run_that_begins_in_the_second_of_the_one_before_counts_anew(
    publisher: StatusPublisher, status: WorkspaceStatus
) -> None:
    """Its start is told in whole seconds; what was counted goes on after a reload alone."""
    status.run.started_at = "2026-11-24T13:20:00Z"
    publisher.note(syncs=2)
    publisher.enter(State.WATCHING)
    publisher.note(syncs=0)
    status.recall()
    assert publisher.now.syncs == 0
