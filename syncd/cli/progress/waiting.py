"""Why a flush waits, for whoever waits for it: in one living line on a terminal, elsewhere in a line now and then."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import click

from syncd.cli.options import CLOCK
from syncd.cli.progress.line import amount, duration
from syncd.core.clock import Clock, stamp
from syncd.core.text import one_line
from syncd.report.speed import Speed
from syncd.sync.status_document import Progress, State, Status

# A flush that is over sooner says nothing.
_SILENT_S = 1.0
_DRAW_EVERY_S = 0.5
PLAIN_EVERY_S = 10.0
_DUMB = ("", "dumb", "unknown")
_WORDS = {
    State.STARTING: "waiting for the daemon to begin",
    State.WATCHING: "waiting for the daemon to begin",
    State.DEBOUNCING: "waiting until the workspace is quiet",
    State.SNAPSHOTTING: "looking at the workspace",
    State.UPLOADING: "uploading",
    State.INITIALIZING: "waiting for the sandbox to take it in",
    State.RETRYING: "trying again",
    State.PAUSED: "syncing is paused",
    State.HELD: "held",
    State.STOPPED: "the daemon has ended",
}


@dataclass(frozen=True)
class WaitReason:
    """What is waited for. Of one kind only figures differ."""

    kind: str
    text: str


def wait_reason(status: Status, now_wall_s: float) -> WaitReason:
    """What the daemon of this document is at."""
    said = status.last_error.message if status.last_error else ""
    if status.state is State.RETRYING and status.retry_at is not None:
        again = f"trying again in {_seconds_until(status.retry_at, now_wall_s)} s"
        return WaitReason(f"retrying {said}", f"{again}: {said}" if said else again)
    if status.state is State.HELD and said:
        return WaitReason(f"held {said}", f"held: {said}")
    return at_work(status.state, status.progress)


def at_work(state: State, progress: Progress | None) -> WaitReason:
    """How far a sync is."""
    if progress is None or not progress.total_bytes:
        return WaitReason(state, _WORDS[state])
    if state is State.SNAPSHOTTING:
        percent = min(100, 100 * progress.done_bytes // progress.total_bytes)
        return WaitReason("packaging", f"packaging, {percent} % of {progress.total_files or 0:,} files")
    figures = f"{amount(progress.done_bytes)} of {amount(progress.total_bytes)}"
    if progress.bytes_per_second is not None:
        figures += f", {amount(progress.bytes_per_second)}/s"
    if progress.seconds_left is not None:
        figures += f", {duration(progress.seconds_left)} left"
    return WaitReason(state, f"{_WORDS[state]}, {figures}")


def _seconds_until(when: str, now_wall_s: float) -> int:
    """From now until a time of the document; the nearest quarter of a day is searched, and no other matters."""
    for seconds in range(21_600):
        if stamp(now_wall_s + seconds) >= when:
            return seconds
    return 21_600


class OwnSync:
    """The reason of a sync that this process makes: an onlooker of it."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self._state = State.SNAPSHOTTING
        self._speed = Speed()
        self.reason = at_work(self._state, None)

    def stage(self, state: State) -> None:
        """Work of another kind begins."""
        self._state, self._speed = state, Speed()
        self.reason = at_work(state, None)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """So many files, and so much of what is in them, are packed."""
        self.reason = at_work(self._state, Progress(done_bytes, total_bytes, done_files, total_files))

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """So much of the archive is sent."""
        now_s = self._clock.monotonic_s()
        self._speed = speed = self._speed.observed(now_s, sent_bytes)
        rate, left_s = speed.bytes_per_s(now_s), speed.seconds_left(total_bytes, now_s)
        self.reason = at_work(self._state, Progress(sent_bytes, total_bytes, None, None, rate, left_s))

    def note(self, text: str) -> None:
        """Something to know, such as an attempt that failed."""
        self.reason = WaitReason(text, text)


class Waiting:
    """Shows on stderr what `why` says, from a second after `with` to its end."""

    def __init__(self, why: Callable[[], WaitReason], clock: Clock = CLOCK) -> None:
        self._why = why
        self._clock = clock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waiting", daemon=True)
        self._living = sys.stderr.isatty() and os.environ.get("TERM", "") not in _DUMB
        self._kind = ""
        self._told_s: float | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._living and self._told_s is not None:
            self._write("\r\x1b[K")

    def show(self) -> None:
        """Say why, if there is something new to say."""
        why, now_s = self._why(), self._clock.monotonic_s()
        if self._living:
            # The last column stays free: some terminals begin a new line as soon as it is written.
            self._write(f"\r\x1b[K{one_line(why.text, _columns() - 1)}")
        elif why.kind != self._kind and (self._told_s is None or now_s - self._told_s >= PLAIN_EVERY_S):
            click.echo(one_line(why.text, 1000), err=True)
        else:
            return
        self._kind, self._told_s = why.kind, now_s

    def _run(self) -> None:
        wait_s = _SILENT_S
        while not self._over.wait(wait_s):
            self.show()
            wait_s = _DRAW_EVERY_S

    def _write(self, text: str) -> None:
        encoding = sys.stderr.encoding or "ascii"
        click.echo(text.encode(encoding, "replace").decode(encoding), nl=False, err=True)


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
