"""The sync cycle against the emulator: one upload URL for many uploads, an answer to each fault, no needless upload."""

from __future__ import annotations

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.api_key import ApiKey
from syncd.core.errors import KeyRefused, SandboxNotFound, Stop
from syncd.core.waiter import Superseded
from syncd.remote.failure import FailureAction, StepFailed
from syncd.sync.status_document import State
from tests.integration.sync_rig import KEY, RecordingObserver, Rig

WHOLE = ["upload-url", "upload", "initialize"]


def test_a_file_is_synced(rig: Rig) -> None:
    """Upload URL, upload, initialize: the sandbox has the file, and the outcome has the numbers."""
    outcome, observer = rig.sync()
    assert rig.arrived() == {"a.txt": "hello"}
    assert rig.asked() == WHOLE
    assert outcome.word == "initialized"
    assert outcome.sync is not None
    assert outcome.sync.files == 1
    assert outcome.sync.archive_bytes == rig.emulator.request_log[1].bytes_in
    assert outcome.sync.finished_at == "2026-11-24T13:20:11Z"
    assert list(dict.fromkeys(observer.stages)) == [State.SNAPSHOTTING, State.UPLOADING, State.INITIALIZING]
    assert observer.sent_bytes[0] == 0
    assert observer.sent_bytes[-1] == outcome.sync.archive_bytes


def test_an_unchanged_workspace_sends_no_request(rig: Rig) -> None:
    """A second sync, also by a new process, has nothing to do; a forced one does everything."""
    rig.sync()
    assert rig.sync()[0].word == "unchanged"
    rig.restart()
    assert rig.sync()[0].word == "unchanged"
    assert rig.asked() == WHOLE
    assert rig.sync(SyncMode.FORCED)[0].word == "initialized"


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


def test_the_expiry_of_the_upload_url_for_people(rig: Rig) -> None:
    """Status can show when the URL expires."""
    assert rig.cycle.url_expires_at is None
    rig.sync()
    assert rig.cycle.url_expires_at == "2026-11-24T13:50:11Z"


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


@pytest.mark.parametrize("fault", ["503", "cut", "html", "error no space left"])
def test_a_failing_api_is_asked_for_an_upload_url_first(rig: Rig, fault: str) -> None:
    """From the second failure of initialize on, and nothing else is asked for until it answers that."""
    rig.emulator.faults.script(f"initialize: {fault} x2", "upload-url: 503 x2 skip=1")
    outcome, observer = rig.sync()
    assert outcome.word == "initialized"
    assert rig.asked() == [*WHOLE, "initialize", *["upload-url"] * 3, "initialize"]
    assert len(observer.waits) == 4


def test_the_wait_grows_across_syncs(rig: Rig) -> None:
    """A sync that was superseded does not reset the wait to the first, short one."""
    rig.emulator.faults.script("upload: 503 always")
    for number in range(4):
        observer = RecordingObserver(rig.clock, ends=Superseded())
        rig.write(content=str(number))
        with pytest.raises(Superseded):
            rig.sync(observer=observer)
        limit = min(8, 1 << number)
        assert limit / 2 <= observer.waits[0] <= limit


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


def test_a_wrong_key_and_a_wrong_sandbox(rig: Rig) -> None:
    """The emulator's own refusals, not scripted ones; with the right ones the sync succeeds."""
    rig.key = ApiKey(f"{KEY}?", "the test")
    failure, _ = rig.fail()
    assert type(failure.as_error()) is KeyRefused
    assert "the test" in failure.message
    assert rig.arrived() == {}
    rig.key = ApiKey(KEY, "the test")
    rig.restart()
    rig.sync()
    assert rig.arrived() == {"a.txt": "hello"}
    rig.keys["sandbox"]["id"] = "monkey-box"
    rig.restart()
    failure, _ = rig.fail()
    assert type(failure.as_error()) is SandboxNotFound
    assert "'monkey-box'" in failure.message


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


def test_a_change_after_the_crash(rig: Rig) -> None:
    """The archive in the bucket is outdated: the workspace is uploaded."""
    rig.emulator.faults.script("initialize: 503")
    with pytest.raises(Stop):
        rig.sync(observer=RecordingObserver(rig.clock, ends=Stop()))
    rig.restart()
    rig.write(content="newer")
    rig.sync()
    assert rig.arrived() == {"a.txt": "newer"}
    assert rig.asked().count("upload") == 2


def test_a_crash_after_a_refused_url(rig: Rig) -> None:
    """The next process does not use a URL that the bucket refused."""
    rig.emulator.faults.script("upload: forbidden")
    with pytest.raises(Stop):
        rig.sync(observer=RecordingObserver(rig.clock, ends=Stop()))
    rig.restart()
    rig.sync()
    assert rig.asked() == ["upload-url", "upload", *WHOLE]


def test_a_crash_in_a_second_upload(rig: Rig) -> None:
    """From its first byte on, the archive of an earlier upload does not count as in the bucket."""
    rig.emulator.faults.script("initialize: 503", "upload: lost skip=1")
    for content in ("first", "second"):
        rig.write(content=content)
        with pytest.raises(Stop):
            rig.sync(observer=RecordingObserver(rig.clock, ends=Stop()))
        rig.restart()
    rig.write(content="first")
    rig.sync()
    assert rig.arrived() == {"a.txt": "first"}


def test_another_sandbox_starts_from_nothing(rig: Rig) -> None:
    """No manifest, upload URL or upload of one sandbox counts for another."""
    rig.sync()
    rig.restart()
    other = rig.emulator.create_sandbox("other")
    rig.keys["sandbox"]["id"] = "other"
    rig.sync()
    assert rig.asked() == [*WHOLE, *WHOLE]
    assert (other.workspace / "a.txt").read_text() == "hello"


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


def test_nothing_is_recorded_before_the_answer(rig: Rig) -> None:
    """A sync that failed at its last step does not count as done."""
    rig.emulator.faults.script("initialize: 404")
    with pytest.raises(StepFailed):
        rig.sync()
    rig.emulator.faults.clear()
    rig.restart()
    assert rig.sync()[0].word == "initialized"
