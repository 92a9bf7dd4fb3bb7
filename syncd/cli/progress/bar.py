"""How a sync shows itself to a person: one living line on a terminal, a few plain ones elsewhere."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import click

from syncd.cli.options import CLOCK
from syncd.cli.progress.line import Work, line, plain
from syncd.core.clock import Clock
from syncd.core.text import one_line
from syncd.report.speed import Speed
from syncd.sync.status_document import State

_WORDS = {
    State.SNAPSHOTTING: "packaging",
    State.UPLOADING: "uploading",
    State.INITIALIZING: "initializing the sandbox",
}
_STYLES = {"word": "bold", "done": "green", "rest": "", "figure": ""}
_FRAMES_PER_S = 10
_DUMB = ("", "dumb", "unknown")
# The kernel's own console has a font of 256 or 512 signs, with no such bars or spinners among them.
_FEW_SIGNS = ("linux",)
# Where nothing can be drawn over, long work still says now and then that it goes on.
_PLAIN_EVERY_S = 30.0


class ProgressBar:
    """Shows stages, files and bytes on stderr, from `with` to its end."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self._console: Any = None
        self._live: Any = None
        # Whole values, replaced and never changed: the thread that draws reads them at any time.
        self._work = Work("starting")
        self._speed = Speed()
        self._since_s = self._told_s = clock.monotonic_s()
        self._sent: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and os.environ.get("TERM", "") not in _DUMB:
            from rich.console import Console  # noqa: PLC0415 - only where a person looks
            from rich.live import Live  # noqa: PLC0415

            self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
            self._live = Live(
                console=self._console,
                get_renderable=self._drawn,
                refresh_per_second=_FRAMES_PER_S,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def doing_now(self) -> str:
        """The word for what was begun last."""
        return self._work.word

    @property
    def upload_bytes_per_s(self) -> float | None:
        """The speed of the last upload as a whole; None: there was none, or it was too short to tell."""
        if self._sent is None or self._sent[0] < 1.0:
            return None
        seconds, sent_bytes = self._sent
        return sent_bytes / seconds

    def stage(self, state: State) -> None:
        """Another kind of work on a sync, or the same one still."""
        self.doing(_WORDS.get(state, str(state)))

    def doing(self, word: str) -> None:
        """Another kind of work, or the same one still."""
        if word == self._work.word:
            return
        self._work, self._speed = Work(word), Speed()
        self._since_s = self._told_s = self._clock.monotonic_s()
        if self._live is None:
            click.echo(f"{word} …", err=True)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """So much of the workspace is in the archive."""
        self._come(
            Work(
                self._work.word,
                done_bytes=done_bytes,
                total_bytes=total_bytes,
                done_files=done_files,
                total_files=total_files,
            )
        )

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """So much of the archive is sent."""
        self._come(Work(self._work.word, done_bytes=sent_bytes, total_bytes=total_bytes))
        self._sent = self._clock.monotonic_s() - self._since_s, sent_bytes

    def received(self, received_bytes: int) -> None:
        """So much has come, of nobody knows how much."""
        self._come(Work(self._work.word, done_bytes=received_bytes))

    def note(self, text: str) -> None:
        """Something to know, such as an attempt that failed."""
        if self._live is not None:
            self._console.print(one_line(text, 1000))
        else:
            click.echo(text, err=True)

    def _come(self, work: Work) -> None:
        now_s = self._clock.monotonic_s()
        if work.done_bytes < self._work.done_bytes:  # tried again from the first byte
            self._since_s = now_s
        self._speed = self._speed.observed(now_s, work.done_bytes)
        self._work = work
        if self._live is None and now_s - self._told_s >= _PLAIN_EVERY_S:
            self._told_s = now_s
            click.echo(plain(self._now()), err=True)

    def _now(self) -> Work:
        now_s, work, speed = self._clock.monotonic_s(), self._work, self._speed
        left_s = speed.seconds_left(work.total_bytes, now_s) if work.total_bytes else None
        return replace(work, seconds=now_s - self._since_s, bytes_per_s=speed.bytes_per_s(now_s), seconds_left=left_s)

    def _drawn(self) -> Any:
        from rich.text import Text  # noqa: PLC0415 - as above

        # The last column stays free: some terminals begin a new line as soon as it is written.
        plain_signs = self._console.options.ascii_only or os.environ.get("TERM") in _FEW_SIGNS
        components = line(self._now(), self._console.width - 1, ascii_only=plain_signs)
        return Text.assemble(*((text, _STYLES[role]) for text, role in components), no_wrap=True, overflow="crop")
