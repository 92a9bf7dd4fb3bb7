"""Shows on stderr how far a command is: one line that is drawn over on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from types import TracebackType
from typing import Self

import click
from msgspec.structs import replace

from syncd.cli.interruption import stderr_is_writable
from syncd.cli.options import CLOCK
from syncd.cli.output import is_screen, may_colour
from syncd.cli.progress.line import Work, line, plain
from syncd.cli.status.text import plain as text_of
from syncd.cli.status.text import wrapped
from syncd.core.clock import Clock
from syncd.core.text import one_line
from syncd.report.speed import Speed
from syncd.sync.status_document import State

_WORDS = {
    State.SNAPSHOTTING: "packaging",
    State.UPLOADING: "uploading",
    State.INITIALIZING: "initializing the sandbox",
    State.RETRYING: "waiting for the next attempt",
}
_COLOURS = {"done": "green"}
_DRAW_EVERY_S = 0.1
# Where nothing can be drawn over, long work gets a line this often.
_PLAIN_EVERY_S = 30.0
_CHECK_PLAIN_EVERY_S = 1.0
# The kernel's own console has a font of 256 or 512 signs, with no such bars or spinners among them.
_FEW_SIGNS = ("linux",)
_SIGNS = "━─⠋"
_ERASE_REST = "\x1b[K"


class ProgressDisplay:
    """Shows stages, files and bytes from `with` to its end, but not in the first `silent_s`."""

    def __init__(self, clock: Clock = CLOCK, *, silent_s: float = 0.0) -> None:
        self._clock = clock
        self._silent_s = silent_s
        self._is_terminal = is_screen(sys.stderr)
        self._ascii_only = os.environ.get("TERM") in _FEW_SIGNS or not _encodable(_SIGNS)
        self._lock = threading.Lock()  # of stderr, and of `_printed`
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        # Immutable values, replaced as a whole: the thread that draws reads them at any time.
        self._work = Work("starting")
        self._speed = Speed()
        self._began_s = self._since_s = clock.monotonic_s()
        self._printed = (self._work.word, self._since_s)
        self._sent: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._erase()

    @property
    def doing_now(self) -> str:
        """The kind of work that was begun last."""
        return self._work.word

    @property
    def upload_bytes_per_s(self) -> float | None:
        """The speed of the last upload as a whole; None: there was none, or it was too short to tell."""
        if self._sent is None or self._sent[0] < 1.0:
            return None
        seconds, sent_bytes = self._sent
        return sent_bytes / seconds

    def stage(self, state: State) -> None:
        """Show a stage of a sync."""
        self.doing(_WORDS.get(state, str(state)))

    def doing(self, word: str) -> None:
        """Show a kind of work, which begins now if it is another one than before."""
        if word == self._work.word:
            return
        self._work, self._speed = Work(word), Speed()
        self._since_s = self._clock.monotonic_s()
        self._print_due()

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """Show how much of the workspace is in the archive."""
        self._update(
            Work(
                self._work.word,
                done_bytes=done_bytes,
                total_bytes=total_bytes,
                done_files=done_files,
                total_files=total_files,
            )
        )

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """Show how much of the archive is sent."""
        self._update(Work(self._work.word, done_bytes=sent_bytes, total_bytes=total_bytes))
        self._sent = self._clock.monotonic_s() - self._since_s, sent_bytes

    def received(self, received_bytes: int) -> None:
        """Show how much is received; the total is unknown."""
        self._update(Work(self._work.word, done_bytes=received_bytes))

    def note(self, text: str) -> None:
        """Print a line that stays, such as an attempt that failed."""
        text = one_line(text, 1000)
        lines = map(text_of, wrapped(text, _columns(), (), 0)) if self._is_terminal else [text]
        with self._lock:
            self._erase()
            _write("".join(f"{row}\n" for row in lines))

    def _update(self, work: Work) -> None:
        now_s = self._clock.monotonic_s()
        if work.done_bytes < self._work.done_bytes:  # tried again from the first byte
            self._since_s = now_s
        self._speed = self._speed.observed(now_s, work.done_bytes)
        self._work = work
        self._print_due()

    def _current(self) -> Work:
        now_s, work, speed = self._clock.monotonic_s(), self._work, self._speed
        left_s = speed.seconds_left(work.total_bytes, now_s) if work.total_bytes else None
        return replace(work, seconds=now_s - self._since_s, bytes_per_s=speed.bytes_per_s(now_s), seconds_left=left_s)

    def _run(self) -> None:
        wait_s = self._silent_s
        while not self._over.wait(wait_s):
            wait_s = _DRAW_EVERY_S if self._is_terminal else _CHECK_PLAIN_EVERY_S
            if not stderr_is_writable():  # where the reader does not read, a write would delay the command's end
                continue
            if self._is_terminal:
                self._draw()
            else:
                self._print_due()

    def _draw(self) -> None:
        # The last column stays free: some terminals begin a new line as soon as it is written.
        pieces = line(self._current(), _columns() - 1, ascii_only=self._ascii_only)
        if may_colour():
            pieces = [(click.style(text, fg=_COLOURS.get(role), bold=role == "word"), role) for text, role in pieces]
        with self._lock:
            _write("\r" + "".join(text for text, _ in pieces) + _ERASE_REST)

    def _erase(self) -> None:
        if self._is_terminal:
            _write("\r" + _ERASE_REST)

    def _print_due(self) -> None:
        """Print a plain line where other work began, or the same goes on for long."""
        now_s = self._clock.monotonic_s()
        if self._is_terminal or now_s - self._began_s < self._silent_s:
            return
        with self._lock:
            word, printed_s = self._printed
            if self._work.word != word:
                _write(f"{self._work.word} …\n")
            elif now_s - printed_s >= _PLAIN_EVERY_S:
                _write(f"{plain(self._current())}\n")
            else:
                return
            self._printed = (self._work.word, now_s)


def _write(text: str) -> None:
    with contextlib.suppress(OSError):  # a reader that has enough costs the display, not the work
        click.echo(text, nl=False, err=True, color=True)


def _encodable(text: str) -> bool:
    try:
        text.encode(sys.stderr.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
