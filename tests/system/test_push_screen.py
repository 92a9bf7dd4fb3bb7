"""The screen of a push: its progress, the message of an interrupt, and what comes next."""

from __future__ import annotations

import os
import random
import re
import signal

import pytest

from syncd.cli.options import keeper
from tests.system.rig import DEFAULTS, Rig

_MIB = 1 << 20
_DATA = random.Random(1).randbytes(2 * _MIB)
_UPLOADING = re.compile(r"uploading  ━*─+ +\d+% +\d:\d\d left +[\d,]+ [Ki]*B of 2,04\d KiB +[\d,]+ KiB/s")


@pytest.fixture(autouse=True)
def _slow(rig: Rig) -> None:
    """Two MiB to send at one MiB a second."""
    rig.configure({"sync.upload_limit_kib_per_second": 1024, "sync.debounce_seconds": 30, "sync.max_wait_seconds": 60})
    rig.write("data.bin", _DATA)
    rig.environ["TERM"] = "xterm-256color"


def test_a_push_on_a_terminal(rig: Rig) -> None:
    """One line shows bytes, speed and time left; the time during the initialize."""
    held = rig.held("initialize")
    with rig.terminal("push") as terminal:
        terminal.until(_UPLOADING.fullmatch, "all figures of an upload on one line")
        took = re.compile(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] unpacking  0:(0[1-9]|[1-5]\d)")
        terminal.until(took.fullmatch, "how long the sandbox takes")
        held.set()
        assert terminal.finish() == 0, terminal.text
    reported, then = terminal.text.splitlines()
    assert re.fullmatch(r"synced 1 file, 2,04\d KiB, in [\d.]+ s", reported), reported
    assert then == f"next: `{keeper('')}` keeps it in sync from now on"


def test_an_interrupted_push(rig: Rig) -> None:
    """Ctrl-C prints what became of the change; the next push sends it, without the first steps.

    With NO_COLOR nothing has a colour.
    """
    rig.environ["NO_COLOR"] = "1"
    with rig.terminal("push", "--config", str(rig.config_file)) as terminal:
        terminal.until(_UPLOADING.fullmatch, "an upload under way")
        cells = [cell for row in terminal.screen.buffer.values() for cell in row.values()]
        assert {(cell.fg, cell.bg) for cell in cells} == {("default", "default")}
        terminal.send(signal.SIGINT)
        assert terminal.finish() == 75
    assert terminal.text.endswith("syncd: stopped while uploading; the sandbox is unchanged: `syncd push` sends it")
    assert rig.count("initialize") == 0
    rig.configure()
    first = rig.ok("push", "--config", str(rig.config_file))
    lines = first.err.splitlines()
    assert lines[:3] == ["packing …", "uploading …", "unpacking …"]
    assert lines[3:] == [f"next: `{keeper('')}` keeps it in sync from now on"]
    rig.write("b")
    os.unlink(rig.workspace / "data.bin")
    rig.write("c")
    second = rig.ok("push")
    assert re.fullmatch(r"synced 2 new, [\d,.]+ \w+, 2 in all, in .*\n", second.out)
    assert "next" not in second.err


@pytest.mark.parametrize("daemon", ["by the daemon", "alone"])
def test_a_push_that_is_retried(rig: Rig, daemon: str) -> None:
    """Each failure is told in a line, with the next attempt and the end; the last line says what is waited for."""
    rig.configure({"retry.first_delay_seconds": 2, "retry.max_delay_seconds": 2})
    if daemon == "by the daemon":
        rig.write("data.bin", "small for now")
        rig.up()
    rig.faults("upload: 503 always")
    rig.write("other", "text")
    with rig.terminal("push") as terminal:
        told = r"503.*; attempt 3\s+in\s+[1-3]\s+s,\s+gives\s+up\s+in\s+0:[0-2]\d\n"
        plan = re.compile(rf"{told}.* waiting for the next attempt  0:\d\d", re.DOTALL)
        terminal.until(plan.search, "the third attempt, and the end")
        rig.emulator.faults.clear()
        assert terminal.finish() == 0, terminal.text


def test_a_look_that_takes_its_time(rig: Rig) -> None:
    """After half a second something turns on the terminal; elsewhere a line says what is waited for."""
    rig.configure(DEFAULTS)
    rig.write("data.bin", "small")
    rig.ok("push")
    held = rig.held("execute")
    with rig.terminal("diff") as terminal:
        terminal.until(re.compile(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] looking at the sandbox  0:\d\d").search, "what is waited for")
        held.set()
        assert terminal.finish() == 0, terminal.text
    assert terminal.text == ""


def test_ctrl_c_leaves_the_daemon_running(rig: Rig) -> None:
    """Ctrl-C in a push by the daemon says that the daemon goes on, and it does."""
    rig.write("data.bin", "small for now")
    rig.up()
    rig.write("data.bin", _DATA)
    with rig.terminal("push") as terminal:
        terminal.until(_UPLOADING.fullmatch, "the daemon's upload")
        terminal.send(signal.SIGINT)
        assert terminal.finish() == 75
    assert "the daemon goes on: see `syncd status`" in terminal.text
    rig.converged()
