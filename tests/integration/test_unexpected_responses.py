"""Unexpected responses of servers: each is a bounded failure with a meaning, never a crash or a leak."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from syncd.core.api_key import ApiKey
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.remote.api import Api
from syncd.remote.failure import ApiStep, StepFailed
from syncd.remote.http_client import HttpClient, NoResponse, Response
from syncd.remote.target import Target
from syncd.sync.status_document import Progress
from tests.clock import ScriptedClock
from tests.emulator.hostile_bodies import bomb
from tests.integration.fault_checks import FRESH, OPS, converge, request_counts
from tests.integration.sync_rig import KEY, RecordingObserver, Rig
from tests.loopback import answering


class ScriptedClient(HttpClient):
    """Gives a prepared response."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(Waiter(Interrupt(), ScriptedClock()))
        self.answer = Response(status, (), body, None, None)

    def exchange(self, *_: object, **__: object) -> Response:
        return self.answer


def api_on(status: int, body: bytes) -> Api:
    """Return an API that answers so."""
    target = Target("https://api.example.com/v1/", "box", "us")
    return Api(target, ApiKey(KEY, "the test"), ScriptedClient(status, body))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"detail": "Region not served"}', "422, Region not served"),
        (
            b'{"detail": [{"loc": ["query", "region"], "msg": "Input should be \'us\'", "type": "enum"}]}',
            "query.region: Input should be 'us'",
        ),
        (b'{"detail": [{"loc": null, "msg": "odd"}, 7, {"loc": "x"}]}', "422, : odd; :)"),
        (b'{"detail": {"a": 1}}', "{'a': 1}"),
        (b'{"detail": null}', "(422)"),
        (b'["detail"]', "(422)"),
        (b'{"detail": "\xff"}', "(422)"),
        (b'{"detail":' + b"[" * 100_000, "(422)"),
        (b"x" * 5000, "(422)"),
        (
            json.dumps({"detail": f"key {KEY} \x1b[2J\nat https://h/o?X-Goog-Signature=5ECRET Bearer {KEY}"}).encode(),
            "422, key ",
        ),
    ],
)
def test_the_detail_is_shown(body: bytes, said: str) -> None:
    """The API's reason for a refusal is in the message, whatever its form, without a key, a signature or a control."""
    with pytest.raises(StepFailed) as caught:
        api_on(422, body).upload_url()
    text = str(caught.value)
    assert said in text
    assert (KEY in text, "5ECRET" in text, text.isprintable(), len(text) < 300) == (False, False, True, True)


def test_a_new_word_for_a_sandbox_that_took_the_archive(rig: Rig) -> None:
    """A status that syncd does not know is no failure: only `error` is one."""
    rig.emulator.faults.script('initialize: json {"sandbox_id": "box", "status": "ready", "message": "done"} always')
    rig.sync()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/o",
        "ftp://h/o",
        "",
        "file:///etc/passwd",
        "http://[bad",
        "https://",
        "https:///o",
        "https://a b/o",
        "https://127.0.0.1/o\r\nA: b",
        "http://h@127.0.0.1/",
    ],
)
def test_an_invalid_upload_url(rig: Rig, url: str) -> None:
    """An upload URL that is invalid or not encrypted is not used; the daemon goes on, and asks for another one."""
    answer = json.dumps({"upload_url": url, "expires_in_minutes": 30})
    rig.emulator.faults.script(f"upload-url: json {answer} always")
    failure, _ = rig.fail()
    assert failure.step is ApiStep.UPLOAD
    assert rig.asked().count("upload") == 0
    assert (rig.asked().count("upload-url") > 1) is ("h@" not in url)  # that one may be reached later


def test_the_bucket_gets_no_key(rig: Rig) -> None:
    """The key is sent to the API's origin alone, even if the bucket is on the same host."""
    heads: list[bytes] = []
    with answering(lambda connection: heads.append(connection.recv(65_536))) as port:
        url = f"http://127.0.0.1:{port}/o?X-Goog-Signature=5ECRET"
        answer = json.dumps({"upload_url": url, "expires_in_minutes": 30})
        rig.emulator.faults.script(f"upload-url: json {answer} always")
        rig.fail(RecordingObserver(rig.clock))
    head = heads[0].split(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"put /o?x-goog-signature=5ecret ")
    assert b"content-type: application/gzip" in head
    assert b"content-length: " in head
    for unwanted in (b"authorization", b"transfer-encoding", b"x-goog-hash", b"content-md5", b"cookie", KEY.encode()):
        assert unwanted not in head.lower().split(b"\r\n", 1)[1]


def test_a_network_failure_shows_no_url() -> None:
    """Its text is syncd's own, whatever the library says."""
    client = HttpClient(Waiter(Interrupt(), ScriptedClock()))
    for url in ("http://127.0.0.1:9/o?X-Goog-Signature=5ECRET", "http://[bad?5ECRET", "nothing://h/5ECRET", "5ECRET"):
        with pytest.raises(NoResponse) as caught:
            client.exchange("GET", url, headers={"Authorization": "Bearer 5ECRET"}, read_s=1)
        assert "5ECRET" not in str(caught.value)
        assert caught.value.__suppress_context__
    client.drop()


@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), ValueError("a defect"), BrokenPipeError()])
def test_an_error_of_the_body_is_not_a_cut_upload(recorded: Rig, raised: Exception) -> None:
    """An error while the body is read, such as a full disk, is raised as it is and not retried."""

    def fail(progress: Progress) -> None:
        if progress.is_upload and progress.done_bytes:
            raise raised

    observer = RecordingObserver(recorded.clock)
    observer.progressed = fail  # type: ignore[method-assign]
    with pytest.raises(type(raised)) as caught:
        recorded.sync(observer=observer)
    assert caught.value is raised
    assert observer.failures == []
    assert recorded.asked().count("initialize") == 0
    # What was sent is put down, or it is not, before anything else comes.
    assert recorded.emulator.request_log.wait("upload")
    converge(recorded)


def test_a_compression_bomb_is_not_decoded(recorded: Rig) -> None:
    """Response bodies are not decoded: none takes more memory than it has bytes."""
    recorded.sync()
    recorded.write(content="more")
    recorded.emulator.faults.script("initialize: bomb always")
    bomb()  # cached: making it takes memory
    tracemalloc.start()
    try:
        recorded.fail()[0]
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_uploads_that_are_cut_off_again_and_again(rig: Rig) -> None:
    """From the third on, the failure names the largest file of the archive, and what to do."""
    rig.write("large", "l" * 80_000)
    rig.emulator.faults.script("upload: 503", "upload: reset mid-body x4")
    _, observer = rig.sync()
    named = ["'large'" in str(failure) and ".syncdignore" in str(failure) for failure in observer.failures]
    assert named == [False, False, False, True, True]
    assert rig.arrived()["large"] == "l" * 80_000


def test_an_upload_url_that_expires_during_the_upload(recorded: Rig) -> None:
    """A connection that is cut after the URL expired is not a network fault: a new URL is requested at once."""
    takes_s = [1801.0]
    recorded.emulator.faults.on("upload", "mid-body", lambda _: recorded.clock.go_on(takes_s.pop() if takes_s else 0.0))
    recorded.emulator.faults.script("upload: reset mid-body")
    observer = recorded.sync()[1]
    assert [failure.action for failure in observer.failures] == [FRESH]
    assert "expired during the upload" in str(observer.failures[0])
    assert request_counts(recorded) == "2 2 1"


def test_another_region_needs_another_upload_url(rig: Rig) -> None:
    """The region is sent with upload URL and initialize, and the URL of one is not used for another."""
    rig.sync()
    rig.set(region="asia")
    rig.send({"a.txt": "east"})
    assert rig.asked() == [*OPS, *OPS]
    asked = [entry.path for entry in rig.emulator.request_log if entry.op in ("upload-url", "initialize")]
    assert [path.rsplit("?", 1)[1] for path in asked] == ["region=us", "region=us", "region=asia", "region=asia"]
