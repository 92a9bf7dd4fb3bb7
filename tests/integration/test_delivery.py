"""The sync cycle against the emulator: one upload URL for many uploads, an answer to each fault, no needless upload."""

from __future__ import annotations

from random import Random
from string import ascii_letters

import pytest

from syncd.core.errors import Stop
from syncd.core.waiter import Superseded
from syncd.model.entry import arrived_digest
from syncd.remote.failure import UploadCutOff
from syncd.sync.status_document import State
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


class _NarrowObserver(RecordingObserver):
    """An observer on a network that cuts off each upload of more than 40 KB."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.clock)
        self._faults = rig.emulator.faults
        self._begins = False

    def stage(self, state: State) -> None:
        super().stage(state)
        self._begins = state is State.UPLOADING

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        super().sent(sent_bytes, total_bytes)
        if self._begins:  # before the request
            self._faults.clear()
            if total_bytes > 40_000:
                self._faults.script("upload: reset mid-body")
        self._begins = False


def test_uploads_that_are_cut_off_go_in_parts(rig: Rig) -> None:
    """The first archive too. A file that does not get through by itself is named, and arrives once it does."""
    rig.use_defaults()
    here = {"a.txt": "hello"}
    for version in ("first", "second"):
        wanted = dict(here)
        for number in range(7):  # the last one has 77 KB
            path, text = f"f{number}", "".join(Random(f"{version} {number}").choices(ascii_letters, k=1200 << number))
            rig.write(path, text)
            here[path] = text
            if number < 6:
                wanted[path] = text
        while len(rig.sync(observer=_NarrowObserver(rig))[0].put_off) > 1:
            pass
        failure, _ = rig.fail(_NarrowObserver(rig))
        assert (type(failure), rig.arrived()) == (UploadCutOff, wanted)
        assert ["'f6'" in str(warning) for warning in rig.cycle.warnings] == [True]
        rig.sync()
        assert (rig.arrived(), rig.warning_keys) == (here, [])


def test_a_whole_archive_leaves_what_waits_as_it_is_there(rig: Rig) -> None:
    """What was sent before is known on, with its bytes, until the newer version gets through."""
    rig.use_defaults()
    rig.keys["sync"]["archive"] = "full"
    rig.write("large", "before")
    rig.sync()
    rig.write("large", large := "".join(Random(0).choices(ascii_letters, k=80_000)))
    for text in ("newer", "newest"):
        rig.write(content=text)
        assert rig.sync(observer=_NarrowObserver(rig))[0].put_off == ("large",)
        assert rig.arrived() == {"a.txt": text, "large": "before"}
    base = rig.cycle.baseline
    assert base is not None
    assert rig.cycle.base_store.get("large", arrived_digest(base["large"])) == b"before"
    rig.sync()
    assert rig.arrived() == {"a.txt": "newest", "large": large}


@pytest.mark.parametrize("was_there", [False, True])
def test_a_reset_takes_nothing_that_cannot_be_sent_again(rig: Rig, *, was_there: bool) -> None:
    """A large file that is new waits for another archive; one that was there keeps the reset waiting."""
    rig.use_defaults()
    rig.keys["sandbox"]["deletions"] = "reset"
    if was_there:
        rig.write("large", "before")
    rig.sync()
    rig.write("large", large := "".join(Random(0).choices(ascii_letters, k=80_000)))
    (rig.workspace / "a.txt").unlink()
    rig.write("b.txt")
    if was_there:
        rig.fail(_NarrowObserver(rig))
        assert rig.arrived() == {"a.txt": "hello", "large": "before"}
    else:
        assert rig.sync(observer=_NarrowObserver(rig))[0].put_off == ("large",)
        assert rig.arrived() == {"b.txt": "hello"}
    rig.sync()
    assert rig.arrived() == {"b.txt": "hello", "large": large}


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
