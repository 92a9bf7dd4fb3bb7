"""The program in the sandbox runs a command there: its end, its output, and one at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.sandbox.protocol import SHORT_BOUNDS, RunReport
from tests.component.program_rig import ProgramRig, environment_of, told
from tests.system.command import CLOCK

_DEADLINE_S = 60.0


class There(ProgramRig):
    """A workspace in which the program runs commands."""

    def asked(self, *command: str, within_s: float = _DEADLINE_S, wait_s: float = _DEADLINE_S) -> tuple[str, Path]:
        request = {"command": command, "within_s": within_s, "wait_s": wait_s, "sample": []}
        return self.prepared({"run": request})

    def run(self, *command: str, **times: float) -> tuple[RunReport, str]:
        """Run a command, and return the report, and what it printed."""
        name, folder = self.asked(*command, **times)
        output = self.output(folder)
        report = told(name, output, SHORT_BOUNDS, folder, lambda report: report.run)
        return report, output[: output.index(f"{name}=")]

    @contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command beside, which is killed at the end."""
        _, folder = self.asked(*command)
        command, environment = [sys.executable, folder / "main.py"], environment_of(self.workspace, self.folder)
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            yield process
            process.kill()

    def until(self, condition: Callable[[], object]) -> None:
        ends_s = CLOCK.monotonic_s() + _DEADLINE_S
        while not condition():
            assert CLOCK.monotonic_s() < ends_s
            CLOCK.sleep(0.01)

    def exists(self, name: str) -> bool:
        return (self.workspace / name).exists()


@pytest.fixture
def there(tmp_path: Path) -> There:
    return There(tmp_path)


@pytest.mark.parametrize(
    ("command", "code", "printed"),
    [
        (("sh", "-c", "pwd; echo $AGENT_WORKSPACE"), 0, "{0}\n{0}\n"),
        (("sh", "-c", "echo out; echo err >&2; exit 3"), 3, "out\nerr\n"),
        (("printf", "no end"), 0, "no end\n"),
        (("printf", "%s|", "$HOME *", "a;b"), 0, "$HOME *|a;b|\n"),
        (("sh", "-c", "kill -9 $$"), 137, ""),
        (("no-such-program", "x"), 127, "no-such-program: No such file or directory\n"),
        (("sh", "-c", "exec >&- 2>&-; exit 4"), 4, ""),
        (("sh", "-c", "cat"), 0, ""),
    ],
)
def test_how_it_ends(there: There, command: tuple[str, ...], code: int, printed: str) -> None:
    """It runs in the workspace without a shell and without input; its exit code is a shell's, its output is there."""
    report, output = there.run(*command)
    assert (report.state, report.exit_code) == ("ended", code)
    assert output == printed.format(there.workspace)


def test_it_is_ended_after_its_time(there: There) -> None:
    """It is ended with all that it started."""

    def printed() -> str:
        report, output = there.run("sh", "-c", "echo begun; sleep 600 & wait; touch late", within_s=0.5)
        assert (report.state, report.exit_code) == ("overdue", 137)
        return output  # a busy machine may not come so far

    there.until(lambda: printed() == "begun\n")
    with there.running("touch", "next"):
        there.until(lambda: there.exists("next"))
    assert not there.exists("late")


def test_a_server_may_stay(there: There) -> None:
    """What it leaves running neither delays its end nor keeps the next one waiting."""
    report, output = there.run("sh", "-c", "sleep 60 & echo $!")
    assert report.seconds < 30
    assert there.run("true", wait_s=0.0)[0].state == "ended"
    os.kill(int(output), signal.SIGKILL)


def test_the_output_is_bounded(there: There) -> None:
    """The first MiB comes as it is printed; of more the last 64 KiB."""
    _, output = there.run("sh", "-c", "yes 1234567 | head -c 3000000; echo the end")
    assert len(output) < (1 << 20) + (1 << 16) + 100
    assert output.startswith("1234567\n")
    assert "\n[1885896 bytes are left out]\n" in output
    assert output.endswith("1234567\nthe end\n")


def test_never_two_at_a_time(there: There) -> None:
    """A second one waits, and is told if it would be for too long."""
    with there.running("sh", "-c", "touch begun; until [ -e go ]; do sleep 0.01; done; touch done"):
        there.until(lambda: there.exists("begun"))
        assert there.run("touch", "second", wait_s=0.2)[0].state == "busy"
        assert not there.exists("second")
        (there.workspace / "go").touch()
        # Who came while the first one ran is told so at its end, and asks once more.
        there.until(lambda: there.run("sh", "-c", "[ -e done ] && touch third")[0].state == "ended")
        assert there.exists("third")


def test_a_killed_execution_takes_the_command_with_it(there: There) -> None:
    """Where the program alone is killed, its command ends too, and what that started keeps the next one waiting."""
    started = "sh -c 'touch begun; until [ -e go ]; do sleep 0.01; done'"
    with there.running("sh", "-c", f"{started}; touch late") as process:
        there.until(lambda: there.exists("begun"))
        process.kill()
        process.wait()
        assert there.run("true", wait_s=0.2)[0].state == "busy"
        (there.workspace / "go").touch()
        there.until(lambda: there.run("true")[0].state == "ended")
        assert not there.exists("late")


def test_without_a_workspace(there: There) -> None:
    """Where an earlier run has removed the workspace itself, that is told as a shell would, and not by a traceback."""
    there.run("rmdir", str(there.workspace))
    report, output = there.run("true")
    assert (report.exit_code, output) == (127, f"{there.workspace}: No such file or directory\n")
