"""An account with a limit of two API requests a second: after the first refusal the requests keep to it."""

from __future__ import annotations

import pytest

from syncd.core.errors import Stop
from syncd.remote.api import Api
from syncd.remote.failure import StepFailed
from syncd.remote.target import Target
from tests.integration.sync_rig import SANDBOX, Rig


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A rig with the defaults, whose looks take as many requests as a person's."""
    bare.use_defaults()
    return bare


def test_one_refusal_is_enough(rig: Rig) -> None:
    """Syncs that follow each other at once are refused a single request, and all arrive."""
    rig.emulator.rate_limit = 2
    for number in range(8):
        rig.write("a.txt", f"edit {number}")
        rig.sync()
        assert rig.arrived()["a.txt"] == f"edit {number}"
    assert [request.status for request in rig.emulator.request_log].count(429) == 1


def test_a_stop_ends_the_wait(rig: Rig) -> None:
    """A request that waits for its turn is not sent after a stop."""
    rig.emulator.rate_limit = 1
    api = Api(Target(rig.emulator.base_url, SANDBOX, "us"), rig.key, rig.client)
    api.sandbox()
    with pytest.raises(StepFailed):
        api.sandbox()
    asked, sleep = len(rig.asked()), rig.clock.sleep

    def stop(seconds: float) -> None:
        rig.client.waiter.interrupt.request()
        sleep(seconds)

    rig.clock.sleep = stop  # type: ignore[method-assign]
    with pytest.raises(Stop):
        api.sandbox()
    assert len(rig.asked()) == asked
