"""Limits of responses and uploads: time, size, and what happens when a server reads or answers too slowly."""

from __future__ import annotations

import tracemalloc

import pytest

from syncd.remote import http_client
from tests.emulator.hostile_bodies import bomb
from tests.integration.recorded_rig import OFFLINE, RecordedRig, fill


@pytest.mark.parametrize(
    "fault",
    [
        "upload-url: drip 0.02",
        "initialize: drip 0.02",
        "upload: drip 0.02",
        "upload-url: hang 600",
        "upload: hang 600 after",
        "upload-url: hang 600 mid-body",
        "initialize: delay 600",
        "initialize: slow 30",
    ],
)
@pytest.mark.usefixtures("short_timeouts")
def test_a_response_times_out(recorded: RecordedRig, fault: str) -> None:
    """A response that drips, stops half-way or never begins is given up after its timeout."""
    recorded.rig.emulator.faults.script(fault)
    (failure,) = recorded.sync().failures
    assert failure.action is OFFLINE
    assert "no answer in time" in str(failure)
    recorded.converge()


def test_a_server_that_never_reads(recorded: RecordedRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that the server does not read is cut off after the timeout of one send."""
    monkeypatch.setattr(http_client, "WRITE_S", 1.0)
    fill(recorded.rig.workspace / "random")
    recorded.rig.emulator.faults.script("upload: hang 600")
    (failure,) = recorded.sync().failures
    assert failure.action is OFFLINE
    assert "cut off (the other side stopped reading)" in str(failure)
    assert recorded.request_counts() == "1 2 1"


def test_a_compression_bomb_is_not_decoded(recorded: RecordedRig) -> None:
    """Response bodies are not decoded: none takes more memory than it has bytes."""
    recorded.sync()
    recorded.rig.write(content="more")
    recorded.rig.emulator.faults.script("initialize: bomb always")
    bomb()  # cached: making it takes memory
    tracemalloc.start()
    try:
        recorded.fail()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
