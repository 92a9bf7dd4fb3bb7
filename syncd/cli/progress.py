"""Shows on stderr how far a command is: one line that is drawn over on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from syncd.cli.interruption import stderr_is_writable
from syncd.cli.layout import TURNING, Tone, bar, figures, next_attempt, styled, wrapped, written
from syncd.cli.options import CLOCK
from syncd.cli.output import is_screen, terminal_size, verbosity
from syncd.core.text import countdown, one_line
from syncd.report.speed import Speed
from syncd.sync.status_document import Progress, State

_WORDS = {
    State.SNAPSHOTTING: "packaging",
    State.UPLOADING: "uploading",
    State.INITIALIZING: "initializing the sandbox",
    State.RETRYING: "waiting for the next attempt",
    State.STOPPED: "waiting for sync.on_synced to end",
}
_DRAW_EVERY_S = 0.1
_ERASE = "\r\x1b[K"


class _Work(Struct, frozen=True):
    """The work that was begun last; a total of 0 is unknown."""

    word: str
    since_s: float
    done: Progress = Progress(0, 0)
    speed: Speed = Speed()


class ProgressDisplay:
    """Shows stages, files and bytes from `with` to its end; with `silent_s` on a terminal alone, and not at first."""

    def __init__(self, *, silent_s: float = 0.0) -> None:
        self._is_quiet = verbosity() < 0
        self._is_drawn = is_screen(sys.stderr) and not self._is_quiet
        self._is_told = not self._is_drawn and not self._is_quiet and not silent_s
        self._silent_s = silent_s
        self._work = _Work("starting", CLOCK.monotonic_s())  # replaced as a whole: the thread that draws reads it
        self._plan: Callable[[float], str] | None = None  # of the next attempt, as of a time
        self._failure = ""
        self._lock = threading.Lock()  # of stderr
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._is_drawn:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._is_drawn:
            self._thread.join()
            _write(_ERASE)

    @property
    def doing_now(self) -> str:
        return self._work.word

    def stage(self, state: State) -> None:
        self.doing(_WORDS.get(state, str(state)))

    def doing(self, word: str) -> None:
        """Show a kind of work, which begins now if it is another one than before."""
        self._plan = None
        if word != self._work.word:
            self._work = _Work(word, CLOCK.monotonic_s())
            if self._is_told:
                _write(f"{word} …\n")

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """Show how much of the workspace is in the archive."""
        self._update(Progress(done_bytes, total_bytes, done_files, total_files))

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        self._update(Progress(sent_bytes, total_bytes))

    def received(self, received_bytes: int) -> None:
        self._update(Progress(received_bytes, 0))

    def _update(self, done: Progress) -> None:
        speed = self._work.speed.observed(CLOCK.monotonic_s(), done.done_bytes)
        self._work = replace(self._work, done=done, speed=speed)

    def retrying(self, failure: str, attempt: int, wait_s: float, gives_up_in_s: float | None) -> None:
        """Show what failed and when it is tried again; on a terminal a failure that repeats itself stays one line."""
        begun_s = CLOCK.monotonic_s()

        def plan(now_s: float) -> str:
            passed_s = now_s - begun_s
            return next_attempt(attempt, wait_s - passed_s, None if gives_up_in_s is None else gives_up_in_s - passed_s)

        if not self._is_quiet and not self._is_drawn:
            self.note(f"{failure}; {plan(begun_s)}")
        elif not self._is_quiet and failure != self._failure:
            self.note(failure)
        self._failure, self._plan = failure, plan

    def note(self, text: str) -> None:
        """Print a line that stays, such as an attempt that failed."""
        text = one_line(text, 1000)
        lines = wrapped(text, terminal_size(sys.stderr).columns, "", 0) if self._is_drawn else [text]
        with self._lock:
            _write(_ERASE * self._is_drawn + "".join(f"{line}\n" for line in lines))

    def _draw(self) -> None:
        wait_s = self._silent_s
        while not self._over.wait(wait_s):
            wait_s = _DRAW_EVERY_S
            if stderr_is_writable():  # where the reader does not read, a write would delay the command's end
                # The last column stays free: some terminals begin a new line as soon as it is written.
                line = _line(self._work, self._plan, terminal_size(sys.stderr).columns - 1)
                with self._lock:
                    _write(_ERASE + written(line, sys.stderr))


def _line(work: _Work, plan: Callable[[float], str] | None, width: int) -> str:
    now_s, total_bytes, word = CLOCK.monotonic_s(), work.done.total_bytes, f"{work.word}  "
    if plan is not None:
        return styled(plan(now_s)[:width], Tone.STRONG)
    left_s = work.speed.seconds_left(total_bytes, now_s) if total_bytes else None
    progress = replace(work.done, bytes_per_second=work.speed.bytes_per_s(now_s), seconds_left=left_s)
    if total_bytes and width > len(word):
        return styled(word, Tone.STRONG) + bar(progress, width - len(word))
    figure = figures(progress)
    if not work.done.done_bytes:
        word = f"{TURNING[int(now_s / _DRAW_EVERY_S) % len(TURNING)]} {word}"
        figure = countdown(now_s - work.since_s)
    return styled(word[:width], Tone.STRONG) + figure[: max(0, width - len(word))]


def _write(text: str) -> None:
    with contextlib.suppress(OSError):  # a reader that has enough costs the display, not the work
        print(text, end="", file=sys.stderr, flush=True)
