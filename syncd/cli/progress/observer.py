"""Who sees how a sync goes, whether this process makes it or the daemon does."""

from __future__ import annotations

from typing import Protocol

import click

from syncd.sync.status_document import State


class ProgressView(Protocol):
    """Shows what it is told."""

    def stage(self, state: State) -> None:
        """Work of another kind begins."""

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """So many files, and so much of what is in them, are packed."""

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """So much of the archive is sent."""

    def note(self, text: str) -> None:
        """Something to know: an attempt that failed, a warning."""


class NoProgress:
    """Says what there is to know, on stderr, and not how it goes."""

    def stage(self, state: State) -> None:
        """Not shown."""

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """Not shown."""

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """Not shown."""

    def note(self, text: str) -> None:
        """In a line."""
        click.echo(text, err=True)
