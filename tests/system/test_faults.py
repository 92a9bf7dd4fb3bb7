"""Failures that pass are retried, and corrupt data is not trusted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.command import CLOCK
from tests.system.rig import Rig


def test_the_daemon_goes_on_after_giving_up(rig: Rig) -> None:
    """After one sync's retries it takes a new snapshot; it never ends by itself."""
    rig.configure({"retry.give_up_after_seconds": 1, "retry.max_delay_seconds": 0.3})
    rig.write("a", "old")
    rig.faults("upload: 503 always")
    daemon = rig.start()
    started_s = CLOCK.monotonic_s()
    rig.until(lambda: CLOCK.monotonic_s() > started_s + 2.5 and rig.count("upload") > 6, "two syncs' patience")
    assert daemon.code is None
    rig.write("a", "new")
    rig.emulator.faults.clear()
    rig.converged()


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


@pytest.fixture
def no_names(tmp_path: Path) -> tuple[str, ...]:
    """A prefix for commands in a network without a name server."""
    servers = tmp_path / "resolv.conf"
    servers.write_text("options timeout:30 attempts:5\nnameserver 127.0.0.1\nnameserver 127.0.0.2\n")
    prefix = ("unshare", "-r", "-m", "-n", sys.executable, "-c", NO_NAMES, str(servers))
    if not all(map(shutil.which, ("unshare", "ip", "mount"))):
        pytest.skip("no unshare(1), ip(8) or mount(8) here")
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    return prefix


def test_a_stop_does_not_wait_for_a_name(rig: Rig, no_names: tuple[str, ...]) -> None:
    """A name lookup lasts five minutes and ignores signals: the daemon ends before it."""
    rig.configure({"sandbox.base_url": "https://api.example.com"})
    rig.fill(3)
    daemon = rig.start(prefix=no_names)
    rig.in_state("uploading")
    assert daemon.stop() == 0
    assert rig.status()["pending"] is True
