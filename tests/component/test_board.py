"""What the board shows of a sync under way: how far, how fast, since when; and when it is time for the desktop."""

from __future__ import annotations

from pathlib import Path

import pytest
from clock import ScriptedClock

from syncd.core.errors import TryLater
from syncd.remote.target import Target
from syncd.report.desktop_notifier import Herald
from syncd.report.history_recorder import Chronicle
from syncd.report.history_store import HistoryFile
from syncd.report.notification_store import NoticeFile
from syncd.report.status_publisher import Board, Tally
from syncd.report.status_store import StatusFile
from syncd.report.systemd_notify import ServiceManager
from syncd.sync.status_document import State, Status

MIB = 1 << 20
AFTER_S = 900.0


class Silent:
    """A desktop on which nothing is ever to be seen."""

    def show(self, notice: object, instead_of: object) -> object:
        raise AssertionError(notice)


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def board(tmp_path: Path, clock: ScriptedClock) -> Board:
    folder = str(tmp_path)
    herald = Herald("/work", AFTER_S, desktop=Silent(), file=NoticeFile(folder, clock), clock=clock)
    return Board(
        workspace="/work",
        target=Target("https://api.example", "box", "us"),
        file=StatusFile(folder),
        manager=ServiceManager({}, clock, 1),
        chronicle=Chronicle(clock, HistoryFile(folder), lambda: "box"),
        herald=herald,
        clock=clock,
        tally=Tally(),
    )


def shown(board: Board) -> Status:
    """As a reader has it."""
    return board.file.last(board.document())


def test_packaging_tells_files_and_upload_bytes(board: Board, clock: ScriptedClock) -> None:
    """Each with its speed and what is left once that is known; nothing of one stage is left in the next."""
    board.enter(State.SNAPSHOTTING)
    for second in range(5):
        board.packed(10 * second, 100, second * MIB, 10 * MIB)
        clock.go_on(1)
    progress = shown(board).progress
    assert progress is not None
    assert (progress.done_files, progress.total_files, progress.done_bytes) == (40, 100, 4 * MIB)
    assert progress.bytes_per_second == pytest.approx(MIB)
    assert progress.seconds_left == pytest.approx(6)
    board.enter(State.UPLOADING)
    assert shown(board).progress is None
    board.sent(MIB, 4 * MIB)
    progress = shown(board).progress
    assert progress is not None
    assert (progress.done_bytes, progress.done_files, progress.seconds_left) == (MIB, None, None)


def test_it_is_shown_twice_a_second_at_most(board: Board, clock: ScriptedClock) -> None:
    """However often it is told; who is told through the board hears when."""
    board.enter(State.UPLOADING)
    told = [board.sent(number, 1000) for number in range(100) if not clock.go_on(0.01)]
    assert sum(told) == 2


def test_bytes_count_over_attempts(board: Board, clock: ScriptedClock) -> None:
    """An upload that begins anew sends its first bytes once more."""
    board.enter(State.UPLOADING)
    for sent in (0, 700, 0, 300, 1000):
        clock.go_on(1)
        board.sent(sent, 1000)
    assert shown(board).uploaded_bytes == 1700


def test_since_when(board: Board, clock: ScriptedClock) -> None:
    """A state that goes on keeps its beginning; another one has its own."""
    board.enter(State.WATCHING)
    begun = shown(board).state_since
    clock.go_on(60)
    board.enter(State.WATCHING)
    assert shown(board).state_since == begun
    board.enter(State.DEBOUNCING)
    assert shown(board).state_since != begun


def test_an_upload_under_way_is_no_failing(board: Board, clock: ScriptedClock) -> None:
    """An attempt failed and the next one takes an hour: nobody is told that syncing fails, until that one fails too."""
    board.chronicle.begin("changes")
    board.enter(State.UPLOADING)
    board.retrying("upload", "the upload was cut off")
    board.enter(State.RETRYING)
    assert board.news_due_s == pytest.approx(clock.monotonic + AFTER_S)
    board.enter(State.UPLOADING)
    clock.go_on(4 * AFTER_S)
    assert board.news_due_s is None
    board.look()
    board.enter(State.RETRYING)
    with pytest.raises(AssertionError, match="not synced"):
        board.failed("upload", TryLater("the upload was cut off"))


def test_a_pause_is_no_failing(board: Board, clock: ScriptedClock) -> None:
    """Neither one that a person began, nor one that a daemon starts in."""
    board.retrying("upload", "the upload was cut off")
    board.enter(State.PAUSED)
    clock.go_on(4 * AFTER_S)
    assert board.news_due_s is None
    board.look()
