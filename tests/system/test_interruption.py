"""Whatever interrupts a command, or becomes of its output: no traceback, and what was asked is done or told."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from syncd.core.directories import Lock
from syncd.core.errors import ExitCode
from tests.repositories import git
from tests.system.command import Running
from tests.system.rig import DEFAULTS, Rig

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
    """It ends with 0, and says nothing but what it waited for."""
    rig.ok("pause")
    with Lock(str(rig.state_folder)):
        daemon = rig.start()
        rig.until(lambda: _catches(daemon, signal.SIGUSR1), "its handlers")
        assert daemon.stop(number) == 0
    assert [line for line in daemon.err.splitlines() if not line.endswith("waiting for its end")] == []


@ENDS
def test_a_signal_while_git_hangs(rig: Rig, number: signal.Signals) -> None:
    """It is asked for the person's exclude file; the daemon ends in time all the same."""
    asked, hold = rig.with_slow_git()
    hold.touch()
    daemon = rig.start()
    rig.until(asked.exists, "git to be asked")
    assert daemon.stop(number) == 0
    hold.unlink()


@ENDS
@pytest.mark.parametrize("args", [("diff",), ("apply", "--json"), ("apply", "--branch", "agent")], ids=" ".join)
def test_a_command_while_git_hangs(rig: Rig, number: signal.Signals, args: tuple[str, ...]) -> None:
    """A command that waits for git ends at once, with nothing changed, also where the signal ended that git."""
    rig.configure({**DEFAULTS, "workspace.use_gitignore": False})
    rig.write("a", "1\n2\n3\n")
    git(rig.workspace, "init")
    rig.ok("push")
    rig.agent.write("a", "1\n2\n3\ntheirs\n")
    rig.write("a", "ours\n1\n2\n3\n")
    asked, hold = rig.with_slow_git()
    hold.touch()
    running = rig.background(*args)
    rig.until(asked.exists, "git to be asked")
    assert (running.stop(number), running.out) == (ExitCode.TRY_LATER, "")
    assert running.err.splitlines()[-1].startswith("syncd: stopped; nothing was changed")
    assert (rig.workspace / "a").read_text() == "ours\n1\n2\n3\n"
    hold.unlink()


def _catches(running: Running, number: signal.Signals) -> bool:
    """True if the process has a handler for the signal."""
    lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
    (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


# -- the output: `syncd ls | head`, a cron job, a full disk


@pytest.mark.parametrize(("files", "lines"), [(3000, 1), (1, 0)], ids=["more than fits into a pipe", "all buffered"])
def test_a_closed_pipe_is_no_failure(rig: Rig, files: int, lines: int) -> None:
    """A command whose output is not read any more ends with 0 and prints nothing."""
    for number in range(files):
        rig.write(f"a-file-with-quite-a-long-name-{number}", b"")
    with rig.piped("ls") as process:
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def redirected(how: str) -> tuple[str, ...]:
    """A prefix that starts the command with these redirections."""
    return ("sh", "-c", f'exec "$@" {how}', "sh")


def test_what_was_asked_is_done(rig: Rig) -> None:
    """Also without stdin, stdout and stderr, and with full ones; what could not be written is named."""
    named = (
        "syncd: the output cannot be written (No space left on device): write it elsewhere; what was asked is done\n"
    )
    for how, code in (
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 75),
        (">/dev/full 2>&1", 75),
    ):
        rig.write("a", how)
        pushed = rig.run("push", prefix=redirected(how))
        assert (rig.sandbox.workspace / "a").read_text() == how
        assert (pushed.code, pushed.err.endswith(named)) == (code, how == ">/dev/full"), how
    for how, code in (("<&- >&- 2>&-", 0), (">/dev/full", 75)):
        (rig.state_folder / "paused").unlink(missing_ok=True)
        assert rig.run("pause", prefix=redirected(how)).code == code
        assert (rig.state_folder / "paused").exists()


def test_the_daemon_without_descriptors(rig: Rig) -> None:
    """None of its files becomes its stdin, stdout or stderr."""
    rig.write("a")
    daemon = rig.up(prefix=redirected("<&- >&- 2>&-"))
    assert {os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in range(3)} == {os.devnull}
    rig.write("b")
    rig.ok("flush")
    assert daemon.stop() == 0
