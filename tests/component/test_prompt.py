"""A question on a terminal."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import redirect_stderr

import pytest

from syncd.cli.options import interruptible, typed
from syncd.core.errors import Stop


class Interrupted(io.StringIO):
    """A terminal on which Ctrl-C is pressed while a text is written."""

    def flush(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_signal_while_the_question_is_written_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is waited for, or taken."""
    ours, theirs = os.openpty()
    os.write(ours, b"\n")
    with open(theirs, encoding="utf-8") as terminal, redirect_stderr(Interrupted()):
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(Stop), interruptible() as waiter:
            typed("What?", waiter, err=True)
    os.close(ours)
