"""The status of a running sync: progress, speed and start; and when the desktop is notified."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.core.errors import TryLater
from syncd.remote.target import Target
from syncd.report.desktop import NotShown, Shown
from syncd.report.desktop_notifier import DesktopNotifier
from syncd.report.history_recorder import HistoryRecorder
from syncd.report.history_store import HistoryStore
from syncd.report.notification_rules import HOUR_S, SUCCESS_TRIES, TRY_AGAIN_S, Notice
from syncd.report.notification_store import NotificationStore
from syncd.report.sent_paths_store import SentPathsStore
from syncd.report.status_publisher import RunTotals, StatusPublisher
from syncd.report.status_store import StatusStore
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sync.outcome import Outcome
from syncd.sync.status_document import PausedBy, State, Status
from tests.clock import ScriptedClock

MIB = 1 << 20
AFTER_S = 900.0


class NoDesktop:
    """A desktop that must show nothing."""

    def show(self, notice: object, instead_of: object) -> object:
        raise AssertionError(notice)


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def publisher(tmp_path: Path, clock: ScriptedClock) -> StatusPublisher:
    folder = str(tmp_path)
    notifier = DesktopNotifier("/work", AFTER_S, desktop=NoDesktop(), file=NotificationStore(folder), clock=clock)
    return StatusPublisher(
        workspace="/work",
        target=Target("https://api.example", "box", "us"),
        file=StatusStore(folder),
        systemd=SystemdNotifier({}, clock, 1),
        recorder=HistoryRecorder(clock, HistoryStore(folder), lambda: "box", SentPathsStore(folder)),
        notifier=notifier,
        clock=clock,
        totals=RunTotals(),
    )


def shown(publisher: StatusPublisher) -> Status:
    """Return the status as a reader gets it."""
    return publisher.file.last(publisher.document())


def test_progress_of_packing_and_upload(publisher: StatusPublisher, clock: ScriptedClock) -> None:
    """Packing counts files, an upload bytes, with speed and time left once known; no stage keeps those of the last."""
    publisher.enter(State.SNAPSHOTTING)
    for second in range(5):
        publisher.packed(10 * second, 100, second * MIB, 10 * MIB)
        clock.go_on(1)
    progress = shown(publisher).progress
    assert progress is not None
    assert (progress.done_files, progress.total_files, progress.done_bytes) == (40, 100, 4 * MIB)
    assert progress.bytes_per_second == pytest.approx(MIB)
    assert progress.seconds_left == pytest.approx(6)
    publisher.enter(State.UPLOADING)
    assert shown(publisher).progress is None
    publisher.sent(MIB, 4 * MIB)
    progress = shown(publisher).progress
    assert progress is not None
    assert (progress.done_bytes, progress.done_files, progress.seconds_left) == (MIB, None, None)


def test_progress_is_written_twice_a_second_at_most(publisher: StatusPublisher, clock: ScriptedClock) -> None:
    """Observers get each call in time."""
    publisher.enter(State.UPLOADING)
    reported = [publisher.sent(number, 1000) for number in range(100) if not clock.go_on(0.01)]
    assert sum(reported) == 2


def test_bytes_count_over_attempts(publisher: StatusPublisher, clock: ScriptedClock) -> None:
    """An upload that starts again counts its first bytes again."""
    publisher.enter(State.UPLOADING)
    for sent in (0, 700, 0, 300, 1000):
        clock.go_on(1)
        publisher.sent(sent, 1000)
    assert shown(publisher).uploaded_bytes == 1700


def test_since_when(publisher: StatusPublisher, clock: ScriptedClock) -> None:
    """A state that goes on keeps its start; another state has its own."""
    publisher.enter(State.WATCHING)
    begun = shown(publisher).state_since
    clock.go_on(60)
    publisher.enter(State.WATCHING)
    assert shown(publisher).state_since == begun
    publisher.enter(State.DEBOUNCING)
    assert shown(publisher).state_since != begun


def test_a_running_upload_is_no_failure(publisher: StatusPublisher, clock: ScriptedClock) -> None:
    """An upload of an hour after a failed attempt causes no notification until it fails, too."""
    publisher.recorder.begin("changes")
    publisher.enter(State.UPLOADING)
    publisher.retrying("upload", "the upload was cut off")
    publisher.enter(State.RETRYING)
    assert publisher.notification_due_s == pytest.approx(clock.monotonic + AFTER_S)
    publisher.enter(State.UPLOADING)
    clock.go_on(4 * AFTER_S)
    assert publisher.notification_due_s is None
    publisher.notify()
    publisher.enter(State.RETRYING)
    with pytest.raises(AssertionError, match="not synced"):
        publisher.failed("upload", TryLater("the upload was cut off"))


def test_a_pause_is_no_failure(publisher: StatusPublisher, clock: ScriptedClock) -> None:
    """A pause causes no notification, whether a user began it or the daemon started in it."""
    publisher.retrying("upload", "the upload was cut off")
    publisher.enter(State.PAUSED)
    clock.go_on(4 * AFTER_S)
    assert publisher.notification_due_s is None
    publisher.notify()


def test_the_reason_of_a_pause_ends_with_it(publisher: StatusPublisher) -> None:
    """The document names it while the state is `paused`."""
    publisher.paused_by = PausedBy.METERED
    publisher.enter(State.PAUSED)
    assert publisher.document().paused_by is PausedBy.METERED
    publisher.enter(State.SNAPSHOTTING)
    assert publisher.document().paused_by is None


class RecordingDesktop:
    """A desktop that records each notice, and the number of the one that it replaces."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, object]] = []
        self.runs = True

    def show(self, notice: Notice, replaced: object) -> Shown:
        if not self.runs:
            raise NotShown("no desktop")
        self.shown.append((notice.summary, replaced))
        return Shown(len(self.shown), "server")

    @property
    def summaries(self) -> list[str]:
        return [summary for summary, _ in self.shown]


BOTH_CHANGED = "work: both sides had changed"
NOT_SAVED = "work: the agent's work is not saved"


def test_the_agents_work_is_told_beside_the_rest(
    publisher: StatusPublisher, clock: ScriptedClock, tmp_path: Path
) -> None:
    """At once and once an hour, in later processes too; a notification that syncing fails stays."""
    desktop = RecordingDesktop()

    def started() -> DesktopNotifier:
        file = NotificationStore(str(tmp_path))
        return DesktopNotifier("/work", AFTER_S, desktop=desktop, file=file, clock=clock)

    publisher.notifier = started()
    publisher.recorder.begin("changes")
    publisher.succeeded(Outcome(None, saved=4))
    assert desktop.shown == []
    publisher.succeeded(Outcome(None, saved=4, overwritten=3))
    assert desktop.shown == [(BOTH_CHANGED, None)]
    publisher.failed("upload", TryLater("no network"))
    clock.go_on(AFTER_S)
    publisher.notify()
    publisher.notifier.unsaved("1 file could not be saved")
    assert desktop.shown[1:] == [("work is not synced", None), (NOT_SAVED, None)]
    publisher.notifier = started()
    assert publisher.notification_due_s is None
    publisher.succeeded(Outcome(None, saved=1, overwritten=1))
    assert desktop.shown[3:] == [("work is in sync again", Shown(2, "server"))]
    assert publisher.notification_due_s == pytest.approx(clock.monotonic + HOUR_S - AFTER_S)
    clock.go_on(HOUR_S - AFTER_S)
    publisher.notify()
    assert desktop.summaries[4:] == [BOTH_CHANGED]
    assert publisher.notification_due_s is None


def test_the_agents_work_is_not_told_for_long(publisher: StatusPublisher, clock: ScriptedClock, tmp_path: Path) -> None:
    """Where no desktop runs, it is given up after a few tries."""
    desktop = RecordingDesktop()
    desktop.runs = False
    file = NotificationStore(str(tmp_path))
    publisher.notifier = DesktopNotifier("/work", AFTER_S, desktop=desktop, file=file, clock=clock)
    publisher.notifier.saved(2)
    publisher.notifier.unsaved("1 file could not be saved")
    for _ in range(SUCCESS_TRIES - 1):
        assert publisher.notification_due_s == clock.monotonic + TRY_AGAIN_S
        clock.go_on(TRY_AGAIN_S)
        publisher.notify()
    assert publisher.notification_due_s is None
    desktop.runs = True
    publisher.notify()
    assert desktop.shown == []
