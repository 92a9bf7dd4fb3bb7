"""The sync cycle against the emulator: one upload URL for many uploads, an answer to each fault, no needless upload."""

from __future__ import annotations

import pytest

from syncd.core.errors import Stop
from syncd.core.waiter import Superseded
from syncd.remote.failure import FailureAction
from tests.integration.sync_rig import RecordingObserver, Rig

WHOLE = ["upload-url", "upload", "initialize"]


def test_one_upload_url_for_many_uploads(rig: Rig) -> None:
    """The URL is used until shortly before it expires, across restarts and suspend too."""
    for number in range(5):
        rig.write(content=f"text {number}")
        rig.sync()
        rig.clock.go_on(200)
    rig.restart()
    rig.clock.suspend(700)
    rig.write(content="at 1700 s")
    rig.sync()
    assert rig.asked().count("upload-url") == 1
    rig.clock.suspend(75)
    rig.write(content="at 1775 s")
    rig.sync()
    assert rig.asked().count("upload-url") == 2
    assert rig.arrived() == {"a.txt": "at 1775 s"}
    assert rig.emulator.request_log.count("upload", 200) == 7


def test_a_url_that_expired_on_the_server(rig: Rig) -> None:
    """If the server's clock is ahead, the bucket's answer counts."""
    rig.sync()
    rig.clock.wall += 3600  # the emulator's wall clock, and ours: by boottime the upload URL is still valid
    rig.write(content="later")
    rig.sync()
    assert rig.asked() == [*WHOLE, "upload", *WHOLE]
    assert rig.arrived() == {"a.txt": "later"}


def test_urls_that_are_always_refused(rig: Rig) -> None:
    """Two new URLs at once, then waits as after any failure, then an end."""
    rig.emulator.faults.script("upload: forbidden always")
    failure, observer = rig.fail()
    assert failure.action is FailureAction.RENEW_URL
    assert observer.waits[:2] == [0.0, 0.0]
    assert all(wait >= 1 for wait in observer.waits[2:])
    assert rig.asked().count("upload") == rig.asked().count("upload-url") == len(observer.waits) + 1 < 20
    assert rig.asked().count("initialize") == 0


@pytest.mark.parametrize(
    ("fault", "again"),
    [
        ("upload-url: 503 x2", "upload-url"),
        ("upload: wrong-hash x2", "upload"),
        ("initialize: lost x2", "initialize"),
    ],
)
def test_a_temporary_failure_is_retried(rig: Rig, fault: str, again: str) -> None:
    """Two failures of one step are two waits, and only that step is repeated."""
    rig.emulator.faults.script(fault)
    outcome, observer = rig.sync()
    assert outcome.word == "initialized"
    assert rig.arrived() == {"a.txt": "hello"}
    assert rig.asked() == [op for op in WHOLE for _ in range(3 if op == again else 1)]
    assert len(observer.waits) == 2
    assert 0.5 <= observer.waits[0] <= 1
    assert 1 <= observer.waits[1] <= 2


def test_retries_end(rig: Rig) -> None:
    """After `give_up_after_seconds` the failure is raised; the next sync starts again and succeeds."""
    rig.emulator.faults.script("upload: 503 always")
    began_s = rig.clock.monotonic
    failure, observer = rig.fail()
    assert failure.as_error().exit_code == 75
    assert rig.clock.monotonic - began_s <= 60
    assert rig.clock.monotonic - began_s + 8 > 60
    assert len(observer.waits) == rig.asked().count("upload") - 1
    rig.emulator.faults.clear()
    rig.sync()
    assert rig.arrived() == {"a.txt": "hello"}


@pytest.mark.parametrize("end", [Superseded(), Stop()])
def test_a_wait_can_be_interrupted(rig: Rig, end: BaseException) -> None:
    """A newer change or a stop ends it; nothing is recorded, and the next sync does everything."""
    rig.emulator.faults.script("upload: 503")
    with pytest.raises(type(end)):
        rig.sync(observer=RecordingObserver(rig.clock, ends=end))
    assert rig.arrived() == {}
    rig.sync()
    assert rig.arrived() == {"a.txt": "hello"}
    assert rig.asked().count("upload-url") == 1


@pytest.mark.parametrize(
    ("fault", "uploads"), [("initialize: reset always", 1), ("initialize: 503 always", 1), ("upload: 503 always", 1)]
)
def test_a_crash_after_the_upload(rig: Rig, fault: str, uploads: int) -> None:
    """A process that died before the answer of `initialize` causes no second upload."""
    rig.emulator.faults.script(fault)
    with pytest.raises(Stop):
        rig.sync(observer=RecordingObserver(rig.clock, ends=Stop()))
    rig.emulator.faults.clear()
    rig.restart()
    rig.sync()
    assert rig.arrived() == {"a.txt": "hello"}
    assert rig.emulator.request_log.count("upload", 200) == uploads


def test_another_region_needs_another_upload_url(rig: Rig) -> None:
    """The region is sent with upload URL and initialize, and the URL of one is not used for another."""
    rig.sync()
    rig.restart()
    rig.keys["sandbox"]["region"] = "asia"
    rig.write(content="east")
    rig.sync()
    assert rig.asked() == [*WHOLE, *WHOLE]
    asked = [entry.path for entry in rig.emulator.request_log if entry.op in ("upload-url", "initialize")]
    assert [path.rsplit("?", 1)[1] for path in asked] == ["region=us", "region=us", "region=asia", "region=asia"]
