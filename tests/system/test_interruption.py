"""A Ctrl-C or SIGTERM while a command loads or waits: no traceback, and an exit code of the table."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from syncd.core.directories import Lock
from tests.system.command import Running, works
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
    lock = Lock(str(rig.state_folder))
    lock.acquire()
    try:
        daemon = rig.start()
        rig.until(lambda: _catches(daemon, signal.SIGUSR1), "its handlers")
        assert daemon.stop(number) == 0
    finally:
        lock.release()
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


# Name servers that answer no query, as on a network that was just lost; then the command itself.
NO_NAMES = """
import os, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
for address in ("127.0.0.1", "127.0.0.2"):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    os.set_inheritable(server.detach(), True)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def test_a_signal_while_a_name_is_looked_up(rig: Rig, tmp_path: Path) -> None:
    """The lookup lasts five minutes and ignores signals: the daemon ends before it."""
    servers = tmp_path / "resolv.conf"
    servers.write_text("options timeout:30 attempts:5\nnameserver 127.0.0.1\nnameserver 127.0.0.2\n")
    prefix = ("unshare", "-r", "-m", "-n", sys.executable, "-c", NO_NAMES, str(servers))
    if not works(*prefix):
        pytest.skip("no network namespaces here")
    rig.configure({"sandbox.base_url": "https://api.example.com"})
    rig.fill(3)
    daemon = rig.start(prefix=prefix)
    rig.in_state("uploading")
    assert daemon.stop() == 0
    assert rig.status()["pending"] is True


def test_a_daemon_that_is_stopped(rig: Rig) -> None:
    """A command says within seconds that it does not answer."""
    rig.write("a")
    daemon = rig.up()
    daemon.send(signal.SIGSTOP)
    try:
        ended = rig.run("push")
    finally:
        daemon.send(signal.SIGCONT)
    wanted = f"syncd: the daemon (process {daemon.pid}) does not answer: see `syncd status`"
    assert (ended.code, ended.err.splitlines()[-1]) == (75, wanted)


def _catches(running: Running, number: signal.Signals) -> bool:
    """True if the process has a handler for the signal."""
    lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
    (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
