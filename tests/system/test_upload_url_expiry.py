"""One signed URL until it expires, and a new one only then or when the bucket refuses it."""

from __future__ import annotations

from tests.system.command import CLOCK
from tests.system.rig import Rig


def _change(rig: Rig, number: int) -> None:
    """Change a file and wait for its sync."""
    before = rig.count("initialize", 200)
    rig.write("counter", str(number))
    rig.until(lambda: rig.count("initialize", 200) > before, "the change's sync")


def test_many_syncs_share_one_url(rig: Rig) -> None:
    """Five syncs and a restart request one URL."""
    rig.write("start")
    daemon = rig.up()
    for number in range(3):
        _change(rig, number)
    daemon.stop()
    rig.write("start", "after the restart")
    rig.up()
    assert rig.count("upload", 200) == 5
    assert rig.count("upload-url") == 1
    assert rig.status()["upload_url_expires_at"] is not None


def test_a_second_url_comes_only_after_expiry(rig: Rig) -> None:
    """Syncs within the lifetime share it, and the first one after it requests exactly one more."""
    rig.emulator.url_lifetime_s = 1
    rig.write("start")
    rig.up()
    for life_s in (4, 8, 16):  # the longer ones are for a busy machine
        began_s = CLOCK.monotonic_s()
        rig.until(lambda: CLOCK.monotonic_s() > began_s + rig.emulator.url_lifetime_s, "the last URL's end")  # noqa: B023
        rig.emulator.url_lifetime_s = life_s
        leased_s, urls = CLOCK.monotonic_s(), rig.count("upload-url")
        for number in range(3):
            _change(rig, life_s + number)
        shared_s = CLOCK.monotonic_s()
        if shared_s < leased_s + 0.8 * life_s:
            break
    assert rig.count("upload-url") == urls + 1
    rig.until(lambda: CLOCK.monotonic_s() > shared_s + life_s, "the URL's end")
    _change(rig, 0)
    assert rig.count("upload-url") == urls + 2
    assert rig.count("upload", 400) == 0, "the URL's end was met, not known"


def test_an_expired_url_is_replaced_at_once(rig: Rig) -> None:
    """The bucket's ExpiredToken causes a new URL without a wait or a failed sync."""
    rig.configure({"retry.first_delay_seconds": 20, "retry.max_delay_seconds": 20})
    rig.write("start")
    rig.faults("upload: expired")
    rig.up()
    assert (rig.count("upload-url"), rig.count("upload")) == (2, 2)


def test_a_url_that_is_always_refused(rig: Rig) -> None:
    """Few new URLs are requested at once; then with waits, until it works."""
    rig.configure({"retry.first_delay_seconds": 60, "retry.max_delay_seconds": 60})
    rig.write("start")
    rig.faults("upload: forbidden always")
    rig.start()
    status = rig.status_in("retrying")
    rig.until(lambda: rig.status()["retry_at"] is not None, "a wait")
    assert rig.count("upload-url") <= 4
    assert status["last_error"]["step"] == "upload"
    rig.emulator.faults.clear()
    rig.ok("flush")
    rig.converged()


def test_another_region_gets_a_url_of_its_own(rig: Rig) -> None:
    """After a change of the region the old URL is not used."""
    rig.write("start")
    rig.up().stop()
    rig.configure({"sandbox.region": "asia"})
    rig.write("start", "again")
    rig.up()
    assert rig.count("upload-url") == 2
    rig.converged()
