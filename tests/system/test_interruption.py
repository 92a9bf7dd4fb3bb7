"""A Ctrl-C or SIGTERM while a command loads or waits: no traceback, and an exit code of the table."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from syncd.core.directories import Lock
from tests.system.command import Running
from tests.system.rig import Rig

ENDS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])


@pytest.mark.parametrize(
    ("command", "module", "number"),
    [
        ("push", "click", signal.SIGINT),
        ("flush", "syncd.cli.progress", signal.SIGTERM),
        ("run", "click", signal.SIGTERM),
        ("run", "httpx", signal.SIGINT),
    ],
)
def test_a_signal_while_modules_load(
    rig: Rig, tmp_path: Path, command: str, module: str, number: signal.Signals
) -> None:
    """One line and 75, or none and 0 from `run`, whichever module it is."""
    loads = tmp_path / "loads"
    (tmp_path / "sitecustomize.py").write_text(f"""
import sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            open({str(loads)!r}, "w").close()
            while True:
                pass

sys.meta_path.insert(0, Finder())
""")
    rig.environ["PYTHONPATH"] = str(tmp_path)
    rig.write("a")
    running = rig.background(command)
    rig.until(loads.exists, "the module to be loaded")
    assert running.stop(number) == (0 if command == "run" else 75)
    stopped = "syncd: stopped; what was not sent is sent by the next sync"
    assert running.err.strip() == ("" if command == "run" else stopped)


@ENDS
def test_a_signal_at_the_very_end(rig: Rig, tmp_path: Path, number: signal.Signals) -> None:
    """While the interpreter takes itself down: all is done, so the exit code says so."""
    at_end = tmp_path / "at-end"
    (tmp_path / "sitecustomize.py").write_text(f"""
import builtins, os, time

class Last:
    def __del__(self, mkdir=os.mkdir, sleep=time.sleep):
        mkdir({str(at_end)!r})
        sleep(0.5)

builtins.last = Last()
""")
    rig.environ["PYTHONPATH"] = str(tmp_path)
    running = rig.background("ls")
    rig.until(at_end.exists, "the end")
    assert running.stop(number) == 0


@ENDS
def test_a_signal_while_run_waits_for_the_lock(rig: Rig, number: signal.Signals) -> None:
    """It ends with 0 and says nothing."""
    rig.ok("pause")
    with Lock(str(rig.state_folder)):
        daemon = rig.start()
        rig.until(lambda: _catches(daemon, signal.SIGUSR1), "its handlers")
        assert daemon.stop(number) == 0
    assert daemon.err == ""


@ENDS
def test_a_signal_while_git_hangs(rig: Rig, number: signal.Signals) -> None:
    """It is asked for the person's exclude file; the daemon ends in time all the same."""
    asked, hold = rig.with_slow_git()
    hold.touch()
    daemon = rig.start()
    rig.until(asked.exists, "git to be asked")
    assert daemon.stop(number) == 0
    hold.unlink()


def _catches(running: Running, number: signal.Signals) -> bool:
    """True if the process has a handler for the signal."""
    lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
    (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
