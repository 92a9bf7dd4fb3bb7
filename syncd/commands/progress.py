"""How a sync shows itself to a person: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

import click

from syncd.policy.status import State

_WORDS = {
    State.SNAPSHOTTING: "packaging",
    State.UPLOADING: "uploading",
    State.INITIALIZING: "initializing the sandbox",
}


class Progress:
    """Shows stages and bytes on stderr, until closed."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._last = ""

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich import console, progress  # noqa: PLC0415 - only where a person looks

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.DownloadColumn(binary_units=True),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(compact=True),
                console=console.Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, state: State) -> None:
        """Another kind of work on a sync."""
        self.doing(_WORDS.get(state, str(state)))

    def doing(self, word: str) -> None:
        """Another kind of work."""
        if self._bar is not None:
            self._bar.update(self._task, description=word)
        elif word != self._last:
            click.echo(f"{word} …", err=True)
        self._last = word

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """So much of the archive is sent."""
        if self._bar is not None:
            self._bar.update(self._task, completed=sent_bytes, total=total_bytes)

    def received(self, received_bytes: int) -> None:
        """So much has come, of nobody knows how much."""
        if self._bar is not None:
            self._bar.update(self._task, completed=received_bytes)

    def retry(self, text: str) -> None:
        """An attempt failed."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            click.echo(text, err=True)
