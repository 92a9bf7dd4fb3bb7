"""What is done about a stdout or stderr that takes nothing more."""

from __future__ import annotations

import os
import select
import sys


def let_go_of_stdout() -> None:
    """Nothing more is written to stdout, not even what is still buffered.

    Its reader has enough, or does not read: at its end the interpreter would wait for a full pipe, and a Ctrl-C would
    seem to be ignored.
    """
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
    except (OSError, ValueError):  # closed, so nothing is waited for
        return


def stderr_takes_more() -> bool:
    """Whether a line can be written to stderr without waiting for its reader."""
    try:
        return bool(select.select([], [sys.stderr.fileno()], [], 0)[1])
    except (OSError, ValueError):
        return False
