"""Shows on stderr how far a command is: one line that is drawn over on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Self, TextIO

from msgspec import Struct
from msgspec.structs import replace

from syncd.cli import stderr_is_writable
from syncd.cli.options import CLOCK
from syncd.cli.output import (
    TURNING,
    Tone,
    bar,
    is_screen,
    next_attempt,
    styled,
    terminal_size,
    verbosity,
    wrapped,
    written,
)
from syncd.core.text import countdown, one_line
from syncd.sync.status_document import Progress, State

_WORDS = {
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


class ProgressDisplay:
    """Shows stages, files and bytes from `with` to its end; with `silent_s` on a terminal alone, and not at first.

    What a set-up prints goes to `output`, or to stderr.
    """

    def __init__(self, doing: str = "starting", *, silent_s: float = 0.0, output: TextIO | None = None) -> None:
        is_quiet = verbosity() < 0
        self._is_drawn = is_screen(sys.stderr) and not is_quiet
        self._is_told = not self._is_drawn and not is_quiet
        self._silent_s = silent_s
        self._output = output
        self._work = _Work(doing, CLOCK.monotonic_s())  # replaced as a whole: the thread that draws reads it
        self._lock = threading.Lock()  # of stderr
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._is_drawn:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._is_drawn:
            self._thread.join()
            _write(_ERASE)

    @property
    def doing_now(self) -> str:
        return self._work.word

    def stage(self, state: State) -> None:
        self.doing(_WORDS.get(state, state.word))

    def doing(self, word: str) -> None:
        """Show a kind of work, which begins now if it is another one than before."""
        if word != self._work.word:
            self._work = _Work(word, CLOCK.monotonic_s())
            if self._is_told and not self._silent_s:
                _write(f"{word} …\n")

    def show(self, done: Progress) -> None:
        """Show how much of this work is done."""
        since_s = self._work.since_s if done.done_bytes >= self._work.done.done_bytes else CLOCK.monotonic_s()
        self._work = replace(self._work, done=done, since_s=since_s)

    def retrying(self, failure: str, attempt: int, wait_s: float, gives_up_in_s: float | None) -> None:
        """Print what failed and when it is tried again, and show how long it is waited for."""
        self.stage(State.RETRYING)
        if self._is_drawn or self._is_told:
            self.note(f"{failure}; {next_attempt(attempt, wait_s, gives_up_in_s)}")

    def note(self, text: str) -> None:
        """Print a line that stays, such as an attempt that failed."""
        text = one_line(text, 1000)
        lines = wrapped(text, terminal_size(sys.stderr).columns, "", 0) if self._is_drawn else [text]
        with self._lock:
            _write(_ERASE * self._is_drawn + "".join(f"{line}\n" for line in lines))

    def output(self, text: str) -> None:
        """Print what a set-up printed."""
        with self._lock:
            _write(_ERASE * self._is_drawn)
            print(text, file=self._output or sys.stderr, flush=True)

    def _draw(self) -> None:
        wait_s = self._silent_s
        while not self._over.wait(wait_s):
            wait_s = _DRAW_EVERY_S
            if stderr_is_writable():  # where the reader does not read, a write would delay the command's end
                # The last column stays free: some terminals begin a new line as soon as it is written.
                line = _line(self._work, terminal_size(sys.stderr).columns - 1)
                with self._lock:
                    _write(_ERASE + written(line, sys.stderr))


def _line(work: _Work, width: int) -> str:
    """The work in one line, with a bar, or, where nothing is counted, how long it takes."""
    now_s = CLOCK.monotonic_s()
    since_s, word = now_s - work.since_s, f"{work.word}  "
    if work.done.done_bytes or work.done.total_bytes:
        rest = bar(work.done.after(since_s), width - len(word))
    else:
        word = f"{TURNING[int(now_s / _DRAW_EVERY_S) % len(TURNING)]} {word}"
        rest = countdown(since_s)[: max(0, width - len(word))]
    return styled(word[:width], Tone.STRONG) + rest


def _write(text: str) -> None:
    with contextlib.suppress(OSError):  # a reader that has enough costs the display, not the work
        print(text, end="", file=sys.stderr, flush=True)
