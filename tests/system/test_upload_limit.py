"""The upload limit with the real command: changed during an upload, and without delay for other requests."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.command import CLOCK, Running
from tests.system.rig import Rig

KEY = "sync.upload_limit_kib_per_second"
SIZE_BYTES = 600_000


@pytest.fixture
def uploading(rig: Rig) -> Running:
    """A daemon during an upload that takes another half minute."""
    rig.write("noise", os.urandom(SIZE_BYTES))
    rig.write("a.txt")
    rig.configure({KEY: 20})
    daemon = rig.start()
    rig.until(lambda: sent(rig) > 0, "the upload to go on")
    return daemon


def sent(rig: Rig) -> int:
    """Wait until so much of the archive is sent."""
    progress = rig.shown().get("progress") or {}
    return int(progress.get("done_bytes", 0)) if rig.shown()["state"] == "uploading" else 0


def reload(rig: Rig, daemon: Running, keys: dict[str, object]) -> None:
    rig.configure(keys)
    daemon.send(signal.SIGHUP)


def test_a_changed_limit_applies_during_an_upload(rig: Rig, uploading: Running) -> None:
    """Lowered, it goes on slowly; removed, it ends at once; it is never started again."""
    reload(rig, uploading, {KEY: 2, "sync.debounce_seconds": 0.3})
    rig.until(lambda: "at most 2 KiB a second" in uploading.err, "the lower limit")
    last = sent(rig)  # shown twice a second
    rig.until(lambda: sent(rig) > last, "the upload to go on")
    before, began_s = sent(rig), CLOCK.monotonic_s()
    rig.until(lambda: sent(rig) >= before + 3000, "the upload to go on")
    assert CLOCK.monotonic_s() - began_s > 0.8
    reload(rig, uploading, {KEY: 0, "sync.debounce_seconds": 0.4})
    rig.converged()
    rig.until(lambda: "configuration read anew" in uploading.err, "the reload itself")
    rig.in_state("watching")
    assert rig.count("upload") == 1
    assert rig.shown()["syncs"] == 1


def test_the_lowest_limit_delays_nothing_else(rig: Rig) -> None:
    """At 1 KiB a second commands are answered at once, and a stop ends in time."""
    rig.write("noise", os.urandom(SIZE_BYTES))
    rig.configure({KEY: 1})
    daemon = rig.start()
    rig.until(lambda: sent(rig) > 0, "the upload to go on")
    for command in ("pause", "resume"):
        rig.ok(command)
    assert daemon.stop() == 0
    assert rig.count("upload", 200) == 0  # it takes ten minutes
