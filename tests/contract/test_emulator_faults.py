"""Every fault of the language acts as its table says, at the moment that it says."""

from __future__ import annotations

import base64
import hashlib
import http.client
import socket
import threading
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from syncd.remote.network import byte_counts
from tests.contract.emulator_rig import GZIP, KEY, PATH, EmulatorRig, files, started_rig
from tests.emulator import BadFault, RequestRecord

CONTENT = files(a=b"1" * 1000)


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
    ("line", "stores"),
    [
        ("upload: 503 before", False),
        ("upload: 503 mid-body", False),
        ("upload: 503", False),
        ("upload: 503 after", True),
        ("upload: reset", False),
        ("upload: reset mid-body", False),
        ("upload: reset after", True),
        ("upload: close", False),
        ("upload: close mid-body", False),
        ("upload: lost", True),
        ("upload: hang 0.05", False),
        ("upload: hang 0.05 after", True),
        ("upload: wrong-hash", True),
    ],
)
def test_the_moment_of_a_fault(rig: EmulatorRig, line: str, stores: bool) -> None:
    """The object is stored only if the work is done first. What the client gets is in the table of the integration."""
    with suppress(httpx.TransportError):
        put(rig, line)
    assert stored(rig) is stores


def test_what_no_failure_shows(rig: EmulatorRig) -> None:
    """A redirect has its address, two hashes are right and wrong ones, a reset is no close, and `gone` lasts."""
    assert put(rig, "upload: 307 location=http://127.0.0.1:1/").headers["location"] == "http://127.0.0.1:1/"
    hashes = put(rig, "upload: two-hashes").headers.get_list("x-goog-hash")
    right = f"md5={base64.b64encode(hashlib.md5(CONTENT).digest()).decode()}"
    assert (len(hashes), right in hashes) == (4, True)
    rig.emulator.faults.script("list: reset", "list: close", "initialize: gone")
    with pytest.raises(httpx.ReadError, match="reset"):
        rig.api.get("/local-sandbox")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        rig.api.get("/local-sandbox")
    assert [rig.api.post(f"{PATH}/initialize").status_code, rig.api.get(PATH).status_code] == [404, 404]


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
