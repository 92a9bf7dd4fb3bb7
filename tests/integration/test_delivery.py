"""The sync cycle against the emulator: one upload URL for many uploads, an answer to each fault, no needless upload."""

from __future__ import annotations

import pytest

from syncd.core.errors import Stop
from syncd.core.waiter import Superseded
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


def test_uploads_that_are_cut_off_again_and_again(rig: Rig) -> None:
    """From the third on, the failure names the largest file of the archive, and what to do."""
    rig.write("large", "l" * 80_000)
    rig.emulator.faults.script("upload: 503", "upload: reset mid-body x4")
    _, observer = rig.sync()
    named = ["'large'" in str(failure) and ".syncdignore" in str(failure) for failure in observer.failures]
    assert named == [False, False, False, True, True]
    assert rig.arrived()["large"] == "l" * 80_000


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
