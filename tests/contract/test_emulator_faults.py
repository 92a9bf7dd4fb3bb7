"""Every fault of the language acts as its table says, at the moment that it says."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from syncd.remote.network import byte_counts
from tests.contract.emulator_rig import GZIP, KEY, PATH, EmulatorRig, files, started_rig
from tests.emulator import BadFault, RequestRecord

CONTENT = files(a=b"1" * 1000)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[EmulatorRig]:
    """A started emulator."""
    with started_rig(tmp_path / "data") as rig:
        yield rig


@pytest.mark.parametrize(
    "line", ["503", "uplaod: 503", "upload: nonsense", "upload: hang", "upload: 503 sometimes", "upload: reset instead"]
)
def test_invalid_lines(rig: EmulatorRig, line: str) -> None:
    """They are refused with the line in the message."""
    with pytest.raises(BadFault) as refused:
        rig.emulator.faults.script(line)
    assert repr(line) in str(refused.value)


def test_a_reset_acknowledges_received_bytes(rig: EmulatorRig) -> None:
    """A reset acknowledges all received bytes first, with an unread body too: the client knows that they arrived."""
    faults = rig.emulator.faults
    faults.script("execute: reset")
    with closing(http.client.HTTPConnection("127.0.0.1", rig.emulator.port, timeout=5)) as client:
        for _ in range(3):  # at first a connection acknowledges everything at once
            client.request("GET", "/local-sandbox", headers={"Authorization": f"Bearer {KEY}"})
            client.getresponse().read()
        faults.on("execute", "before", lambda _: client.send(b"{}"))
        before = byte_counts(client.sock)
        client.putrequest("POST", f"{PATH}/execute")
        client.putheader("Content-Length", "2")
        client.endheaders()
        with pytest.raises(ConnectionResetError):
            client.sock.recv(1)
        after = byte_counts(client.sock)
    assert before is not None
    assert after is not None
    assert after.acked_bytes > before.acked_bytes


def test_counting(rig: EmulatorRig) -> None:
    """Faults act in the order of adding; `skip` lets requests pass, `xN` counts, `always` stays until cleared."""
    rig.emulator.faults.script("list: 500 x2", "list: 502 skip=1", "any: 503 skip=1 always")
    statuses = [rig.api.get("/local-sandbox").status_code for _ in range(6)]
    assert statuses == [500, 500, 200, 502, 503, 503]
    assert rig.api.get(PATH).status_code == 503
    rig.emulator.faults.clear()
    assert rig.api.get(PATH).status_code == 200


def put(rig: EmulatorRig, *lines: str, content: bytes = CONTENT) -> httpx.Response:
    """An upload with these faults."""
    url = rig.upload_url()
    rig.emulator.faults.script(*lines)
    return rig.bucket.put(url, content=content, headers=GZIP)


def stored(rig: EmulatorRig) -> bool:
    """True if the upload's content is in the bucket."""
    rig.emulator.faults.clear()
    return rig.api.post(f"{PATH}/initialize").status_code == 200


@pytest.mark.parametrize(
    ("line", "status", "holds", "stores"),
    [
        ("upload: 503 retry-after=2", 503, "<Code>ServiceUnavailable</Code>", False),
        ("upload: 503 before", 503, "<Code>ServiceUnavailable</Code>", False),
        ("upload: 503 mid-body", 503, "<Code>ServiceUnavailable</Code>", False),
        ("upload: 503 after", 503, "<Code>ServiceUnavailable</Code>", True),
        ("upload: expired", 400, "<Code>ExpiredToken</Code>", False),
        ("upload: forbidden", 403, "<Code>SignatureDoesNotMatch</Code>", False),
        ("upload: 400 code=EntityTooLarge", 400, "<Code>EntityTooLarge</Code>", False),
        ("upload: html", 200, "<html>", False),
        ('upload: json {"a": 1}', 200, '{"a": 1}', False),
        ("upload: 307 location=http://127.0.0.1:1/", 307, "", False),
        ("upload: delay 0.05", 200, "", True),
        ("upload: slow 100000", 200, "", True),
        ("upload: wrong-hash", 200, "", True),
        ("upload: no-hash", 200, "", True),
    ],
)
def test_faults_that_answer(rig: EmulatorRig, line: str, status: int, holds: str, stores: bool) -> None:
    """The response is the fault's, and the object is stored only if the table says so."""
    answer = put(rig, line)
    assert (answer.status_code, holds in answer.text) == (status, True)
    assert answer.headers.get("retry-after") == ("2" if "retry-after" in line else None)
    assert answer.headers.get("location") == ("http://127.0.0.1:1/" if "location" in line else None)
    assert stored(rig) is stores
    assert [entry.fault is not None for entry in rig.emulator.request_log if entry.op == "upload"] == [True]


@pytest.mark.parametrize(
    ("line", "stores"),
    [
        ("upload: reset", False),
        ("upload: reset mid-body", False),
        ("upload: reset after", True),
        ("upload: close", False),
        ("upload: close mid-body", False),
        ("upload: lost", True),
        ("upload: hang 0.05", False),
        ("upload: hang 0.05 mid-body", False),
        ("upload: hang 0.05 after", True),
    ],
)
def test_faults_that_end_the_connection(rig: EmulatorRig, line: str, stores: bool) -> None:
    """There is no answer, and the object is stored only if the work is done first."""
    with pytest.raises(httpx.TransportError):
        put(rig, line)
    assert stored(rig) is stores


def test_a_reset_is_no_close(rig: EmulatorRig) -> None:
    """`reset` and `close` end the connection in two ways: clients see two different errors."""
    rig.emulator.faults.script("list: reset", "list: close")
    with pytest.raises(httpx.ReadError, match="reset"):
        rig.api.get("/local-sandbox")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        rig.api.get("/local-sandbox")


def test_a_waiting_request_ends_with_its_client(rig: EmulatorRig) -> None:
    """A delayed request ends, without doing its work, when its client closes the connection."""
    assert rig.upload(CONTENT).status_code == 200
    rig.emulator.faults.script("initialize: delay 600")
    with pytest.raises(httpx.ReadTimeout):
        rig.api.post(f"{PATH}/initialize", timeout=0.1)
    assert rig.emulator.request_log.wait("initialize", timeout_s=5)
    assert rig.tree() == {}


def raw_answer(rig: EmulatorRig, longest: int = 1 << 16) -> bytes:
    """The bytes of the answer to one request."""
    said = b""
    with socket.create_connection(("127.0.0.1", rig.emulator.port), timeout=5) as connection:
        head = f"GET /local-sandbox HTTP/1.1\r\nHost: 127.0.0.1:{rig.emulator.port}\r\nConnection: close\r\n"
        connection.sendall(f"{head}Authorization: Bearer {KEY}\r\n\r\n".encode())
        while len(said) < longest and (piece := connection.recv(4096)):
            said += piece
    return said


def test_malformed_answers(rig: EmulatorRig) -> None:
    """`raw` is sent as it is, `flood` repeats, `twice` is sent two times, `drip` is complete in the end."""
    rig.emulator.faults.script("list: raw a\\r\\n\\x00|b", "list: flood one|two", "list: twice", "list: drip 0.0001")
    assert raw_answer(rig) == b"a\r\n\x00|b"
    assert raw_answer(rig).startswith(b"onetwotwotwotwo")
    whole = raw_answer(rig)
    assert whole[: len(whole) // 2] == whole[len(whole) // 2 :]
    assert raw_answer(rig) == whole[: len(whole) // 2]


def test_a_skewed_date(rig: EmulatorRig) -> None:
    """`skew` changes the response's Date, and nothing else."""
    rig.emulator.faults.script("list: skew 3600", "list: skew -3600")
    ahead, behind, right = (
        parsedate_to_datetime(rig.api.get("/local-sandbox").headers["date"]).timestamp() for _ in range(3)
    )
    assert 3590 < ahead - right < 3610
    assert 3590 < right - behind < 3610


def test_a_compressed_answer(rig: EmulatorRig) -> None:
    """`bomb` is small when sent, and 64 MiB when both codings are decoded."""
    rig.emulator.faults.script("list: bomb")
    with rig.api.stream("GET", "/local-sandbox") as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip, gzip"
    assert len(packed) < 1024
    assert len(gzip.decompress(gzip.decompress(packed))) == 64 << 20


def hashes(answer: httpx.Response) -> list[str]:
    return answer.headers.get_list("x-goog-hash")


def test_wrong_hashes(rig: EmulatorRig) -> None:
    """`wrong-hash` names other hashes, `no-hash` none, `corrupt` those of the changed bytes that it stored."""
    sent = f"md5={base64.b64encode(hashlib.md5(CONTENT).digest()).decode()}"
    assert sent in hashes(put(rig))
    lie = hashes(put(rig, "upload: wrong-hash"))
    assert len(lie) == 2
    assert sent not in lie
    assert hashes(put(rig, "upload: no-hash")) == []
    both = hashes(put(rig, "upload: two-hashes"))
    assert len(both) == 4
    assert sent in both
    flipped = hashes(put(rig, "upload: corrupt"))
    assert len(flipped) == 2
    assert sent not in flipped
    assert rig.api.post(f"{PATH}/initialize").status_code == 500


def test_a_download_can_be_corrupt_or_incomplete(rig: EmulatorRig) -> None:
    """`corrupt` changes a byte, `reset mid-body` ends in the middle, `cut` sends half of the body as a whole one."""
    rig.initialize(CONTENT)
    url = rig.api.get(f"{PATH}/dump").json()["download_url"]
    whole = rig.bucket.get(url).content
    rig.emulator.faults.script("download: corrupt", "download: reset mid-body", "download: cut")
    corrupt = rig.bucket.get(url).content
    assert len(corrupt) == len(whole)
    assert sum(left != right for left, right in zip(corrupt, whole, strict=True)) == 1
    with pytest.raises(httpx.TransportError):
        rig.bucket.get(url)
    assert rig.bucket.get(url).content == whole[: len(whole) // 2]


def test_faults_of_the_api(rig: EmulatorRig) -> None:
    """The API's faults have its formats: `detail`, half a JSON text, a status that says error, another address."""
    assert rig.upload(CONTENT).status_code == 200
    rig.emulator.faults.script(
        "initialize: 503 retry-after=1",
        "initialize: error no space left",
        "initialize: cut",
        "initialize: 307 location=http://127.0.0.1:1/",
        "initialize: 504 after",
    )
    busy, error, cut, elsewhere, late = (rig.api.post(f"{PATH}/initialize") for _ in range(5))
    assert (busy.status_code, busy.json()) == (503, {"detail": "Service Unavailable"})
    assert error.json() == {"sandbox_id": "box", "status": "error", "message": "no space left"}
    assert cut.text.startswith('{"sandbox_id"')
    assert not cut.text.endswith("}")
    assert elsewhere.headers["location"] == "http://127.0.0.1:1/"
    assert late.status_code == 504
    assert "a" in rig.tree()


def test_a_sandbox_can_be_deleted(rig: EmulatorRig) -> None:
    """After `gone` this request and later ones are 404."""
    rig.emulator.faults.script("initialize: gone")
    assert rig.initialize(CONTENT).status_code == 404
    assert rig.api.get(PATH).status_code == 404


def test_an_archive_can_replace_the_workspace(rig: EmulatorRig) -> None:
    """With `replace`, files that are not in the archive are removed; without it they stay."""
    rig.initialize(files(a=b"1", b=b"1"))
    rig.emulator.faults.script("initialize: replace")
    assert rig.initialize(files(b=b"2")).status_code == 200
    assert rig.tree() == {"b": b"2"}
    assert rig.initialize(files(a=b"3")).status_code == 200
    assert rig.tree() == {"a": b"3", "b": b"2"}


def test_an_endless_response(rig: EmulatorRig) -> None:
    """`huge` continues until the client closes the connection."""
    rig.emulator.faults.script("upload-url: huge")
    with rig.api.stream("POST", f"{PATH}/upload-url") as answer:
        received = 0
        for chunk in answer.iter_raw():
            received += len(chunk)
            if received > 8 * 1024**2:
                break
    assert rig.emulator.request_log.wait("upload-url")
    assert rig.api.get(PATH).status_code == 200


def test_hooks_run_at_each_moment(rig: EmulatorRig) -> None:
    """A hook runs before, in the middle and after, while the client waits."""
    seen: list[tuple[str, int, bool]] = []

    def record(name: str) -> None:
        def hook(entry: RequestRecord) -> None:
            seen.append((name, entry.bytes_in, any((rig.emulator.data_dir / "bucket").rglob("*.gz"))))

        rig.emulator.faults.on("upload", name, hook)

    for name in ("before", "mid-body", "after"):
        record(name)
    put(rig)
    assert [(name, done) for name, _, done in seen] == [("before", False), ("mid-body", False), ("after", True)]
    assert [received for _, received, _ in seen] == [0, len(CONTENT) // 2, len(CONTENT)]


def test_a_failing_hook_is_not_lost(tmp_path: Path) -> None:
    """An error of a hook in a server thread is raised again when the emulator is closed."""

    def fail(_: RequestRecord) -> None:
        raise LookupError("in the hook")

    with pytest.raises(LookupError, match="in the hook"), started_rig(tmp_path) as rig:  # noqa: PT012 - raised at its end
        rig.emulator.faults.on("list", "before", fail)
        assert rig.api.get("/local-sandbox").status_code == 500


def test_closing_is_prompt(tmp_path: Path) -> None:
    """Requests that hang, are slow or never end do not keep the emulator open."""
    answers: list[object] = []

    def ask(rig: EmulatorRig, path: str) -> None:
        try:
            with httpx.Client(base_url=rig.emulator.base_url, headers=rig.api.headers, timeout=30) as client:
                answers.append(client.get(path))
        except httpx.TransportError as error:
            answers.append(error)

    with started_rig(tmp_path) as rig:
        rig.emulator.faults.script("list: hang 600", "list: slow 0.01", "get: delay 600")
        threads = [threading.Thread(target=ask, args=(rig, p)) for p in ("/local-sandbox", "/local-sandbox", PATH)]
        entered = threading.Semaphore(0)
        rig.emulator.faults.on("any", "before", lambda _: entered.release())
        for thread in threads:
            thread.start()
        for _ in threads:
            assert entered.acquire(timeout=20)
        began_s = rig.clock.monotonic_s()
    assert rig.clock.monotonic_s() - began_s < 20, "it was the clients that gave up"
    for thread in threads:
        thread.join()
    assert all(isinstance(answer, httpx.TransportError) for answer in answers)
    assert len(answers) == 3


def test_nothing_secret_is_kept(rig: EmulatorRig) -> None:
    """Neither the request log nor its lines hold a key or a signature."""
    put(rig)
    rig.api.get(f"{PATH}?api_key=key-of-the-test")
    shown = repr(rig.emulator.request_log.entries()) + "".join(map(str, rig.emulator.request_log))
    assert "key-of-the-test" not in shown
    assert "Goog" not in shown
    assert "workspace.tar.gz?…" in shown
    assert rig.emulator.request_log.ops() == ["upload-url", "upload", "get"]
    assert rig.emulator.request_log.count("upload", 200) == 1
