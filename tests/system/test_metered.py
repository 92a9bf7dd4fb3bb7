"""`sync.on_metered = "pause"` with the real daemon, and NetworkManager's word on a bus of the test."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bus import NO_BUS, private_bus
from tests.networkmanager import NO, YES, NetworkManager, network_manager
from tests.system.rig import Rig

needs_bus = pytest.mark.skipif(bool(NO_BUS), reason=NO_BUS or "all is here")
PAUSE = {"sync.on_metered": "pause"}


@pytest.fixture
def network(rig: Rig, tmp_path: Path) -> Iterator[NetworkManager]:
    """The NetworkManager of the machine that the daemon runs on, which calls its connection metered."""
    with private_bus(f"unix:path={tmp_path}/bus") as address, network_manager(address, YES) as server:
        rig.environ["DBUS_SYSTEM_BUS_ADDRESS"] = address
        rig.configure(PAUSE)
        yield server


@needs_bus
def test_syncing_waits_for_another_connection(rig: Rig, network: NetworkManager) -> None:
    """From the start on nothing is sent, and `status` says why; commands send and try again, then the pause goes on."""
    rig.configure({**PAUSE, "retry.give_up_after_seconds": 0})
    rig.write("a")
    daemon = rig.start()
    document = rig.status_in("paused")
    assert (document["paused_by"], document["pending"]) == ("metered", True)
    assert re.search(r"paused( for \d+ s)?: the connection is metered", rig.ok("status").out)
    assert rig.count("upload-url") == 0
    rig.ok("push")
    rig.in_state("paused")
    rig.write("a", "changed")
    rig.faults("initialize: 503")
    rig.ok("flush")
    rig.in_state("paused")
    assert rig.count("initialize", 200) == 2
    uploads = rig.count("upload")
    rig.write("b")
    rig.until(lambda: rig.shown()["pending"], "the change to be noted")
    assert rig.count("upload") == uploads
    network.change(NO)
    rig.converged()
    rig.in_state("watching")
    assert rig.status()["paused_by"] is None
    assert daemon.err.count("the connection is metered") == 1


@needs_bus
def test_an_upload_is_given_up(rig: Rig, network: NetworkManager) -> None:
    """An upload that no command waits for ends when the connection becomes a metered one."""
    network.change(NO)
    rig.configure({**PAUSE, "sync.upload_limit_kib_per_second": 20})
    rig.write("noise", os.urandom(600_000))
    rig.start()
    rig.until(lambda: (rig.shown().get("progress") or {}).get("done_bytes"), "the upload to go on")
    network.change(YES)
    assert rig.status_in("paused")["pending"]
    assert rig.count("upload", 200) == 0


def test_by_default_no_bus_is_connected(rig: Rig, tmp_path: Path) -> None:
    """A daemon that is to sync on each connection asks nobody."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "bus"))
        door.listen()
        door.setblocking(False)
        rig.environ["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={tmp_path}/bus"
        rig.write("a")
        rig.up()
        with pytest.raises(BlockingIOError):
            door.accept()
