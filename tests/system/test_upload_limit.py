"""The upload limit with the real command: another one by a reload, and without delay for other requests."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.command import Running
from tests.system.rig import Rig

KEY = "sync.upload_limit_kib_per_second"
SIZE_BYTES = 600_000


@pytest.fixture
def uploading(rig: Rig) -> Running:
    """A daemon during an upload that takes minutes."""
    rig.write("noise", os.urandom(SIZE_BYTES))
    rig.write("a.txt")
    rig.configure({KEY: 1})
    daemon = rig.start()
    rig.until(lambda: sent(rig) > 0, "the upload to go on")
    return daemon


def sent(rig: Rig) -> int:
    """Wait until so much of the archive is sent."""
    progress = rig.shown().get("progress") or {}
    return int(progress.get("done_bytes", 0)) if rig.shown()["state"] == "uploading" else 0


def test_a_reload_begins_an_upload_anew(rig: Rig, uploading: Running) -> None:
    """With the new limit, whatever else of the configuration is as before."""
    rig.configure({KEY: 0})
    uploading.send(signal.SIGHUP)
    rig.converged()
    rig.until(lambda: "configuration read anew" in uploading.err, "the reload itself")
    rig.in_state("watching")
    assert rig.shown()["syncs"] == 1
