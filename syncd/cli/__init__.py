"""The commands, a module or package each. Only this package prints.

Begins at `main`, which loads `commands` once signals are handled: a command ends at SIGINT and SIGTERM whatever it
does, without a traceback, and with an exit code of its table.

While modules load, the process ends at once: nothing is begun yet, and an exception in the middle of an import is lost
or comes out as another one. A command is interrupted by `KeyboardInterrupt`, or waits within `core.waiter`. A signal
that was ignored at the start stays ignored. This module loads nothing that takes time.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable
from types import FrameType

from syncd.core.errors import ExitCode

_STOPPED = b"syncd: stopped; what was not sent is sent by the next sync\n"


def main() -> None:
    """Run the program: every failure is one line on stderr and an exit code."""
    end_at_signals()
    if sys.argv[1:2] == ["run"]:  # reads the configuration and syncs once it handles them; at its end both are too late
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    atexit.register(end_undisturbed)  # the first one runs last
    _have_names_in_utf8()
    from syncd.cli.commands import run_command  # noqa: PLC0415 - slow, and a signal may come meanwhile

    try:
        code = run_command()
        end_at_signals(code)
    except KeyboardInterrupt:
        discard_stdout()
        _tell_stopped()
        code = ExitCode.TRY_LATER
    sys.exit(code)


def _have_names_in_utf8() -> None:
    """Begin anew where this locale has another encoding: the archive and the state have names as UTF-8."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself


def end_at_signals(code: int | None = None) -> None:
    """From now on a signal ends the process at once: with this code; None: the command has not begun."""
    _handle(lambda _number, _frame: end_now(code))


def interrupt_at_signals() -> None:
    """From now on a signal raises `KeyboardInterrupt` in the main thread, and a second one ends the process at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        end_at_signals()
        raise KeyboardInterrupt

    _handle(interrupt)


def end_undisturbed() -> None:
    """From now on a signal is ignored: all is done and written, and the interpreter is about to end with its code.

    At its very end it gives up its handlers, and a signal would be the end of the process instead of that code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, full
            stream.flush()
    _handle(signal.SIG_IGN)


def end_now(code: int | None = None) -> None:
    """End the process without clean-up, which it may miss at any instant."""
    if code is None and sys.argv[1:2] == ["run"]:
        code = ExitCode.DONE
    if code is None:
        _tell_stopped()
        code = ExitCode.TRY_LATER
    os._exit(code)


def discard_stdout() -> None:
    """Discard all further output, and what is still buffered.

    Where the reader does not read, the interpreter would wait at its end for a full pipe, and a Ctrl-C would seem to be
    ignored.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)


def stderr_is_writable() -> bool:
    """True if a line can be written to stderr without waiting for its reader."""
    try:
        return bool(select.select([], [2], [], 0)[1])
    except OSError:  # closed
        return False


def _tell_stopped() -> None:
    if stderr_is_writable():
        try:
            os.write(2, _STOPPED)  # not by `sys.stderr`, which may be in the middle of a write
        except OSError:  # nobody can be told
            return


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
