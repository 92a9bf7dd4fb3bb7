"""Prints names on stdout, and handles a stdout or stderr whose reader has stopped reading."""

from __future__ import annotations

import os
import select
import sys

import click


def print_path(path: str, rest: str = "") -> None:
    """Print a line that begins with a path: its bytes for a script, escaped for a terminal."""
    from syncd.core.text import shown_path  # noqa: PLC0415 - `--version` needs none of it

    if sys.stdout.isatty():
        click.echo(shown_path(path) + rest)
    else:
        sys.stdout.buffer.write(os.fsencode(path) + os.fsencode(rest) + b"\n")


def discard_stdout() -> None:
    """Discard all further output, and what is still buffered.

    Where the reader does not read, the interpreter would wait at its end for a full pipe, and a Ctrl-C would seem to be
    ignored.
    """
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
    except (OSError, ValueError):  # closed: nothing to discard
        return


def stderr_is_writable() -> bool:
    """True if a line can be written to stderr without waiting for its reader."""
    try:
        return bool(select.select([], [sys.stderr.fileno()], [], 0)[1])
    except (OSError, ValueError):
        return False
