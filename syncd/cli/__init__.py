"""The commands, a module or package each. Only this package prints.

Begins at `main`, which loads `commands` once signals are handled.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

from syncd.cli.interruption import end_at_signals, end_undisturbed, stopped


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
        code = stopped()
    sys.exit(code)


def _have_names_in_utf8() -> None:
    """Begin anew where this locale has another encoding: the archive and the state have names as UTF-8."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself
