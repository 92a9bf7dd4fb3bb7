"""The fault table: for each network fault, what syncd does, how many requests it takes, and the message.

Each row is a fault in the emulator's language. It happens once, and then always until syncd gives up; after both the
next sync must bring everything over, and no message may hold the key or a URL's signature.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.remote import http_client
from syncd.remote.failure import ApiStep, FailureAction
from tests.integration.fault_checks import AGAIN, FRESH, JSON, OFFLINE, REFUSED, RETRY, converge, raw, request_counts
from tests.integration.sync_rig import Rig
from tests.loopback import answering, server_tls

# The most requests of the failing kind before syncd gives up after a minute, with waits from 1 to 8 s.
MAX_IN_A_MINUTE = 16

DEEP = '{"x":' * 5000
WIDE = json.dumps({"upload_url": "https://h/" + "o" * 900_000, "expires_in_minutes": 30})

# Responses that only a timeout ends, and that keep a processor busy until then.
ENDLESS = "flood HTTP/1.1 10"


CHUNKED = "flood HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
NO_ANSWER = "did not answer"
SENSELESS = "is invalid"

# fault | failure action (None: no failure) | part of the message
API_ROWS = [
    # -- the connection
    ("reset", OFFLINE, NO_ANSWER),
    ("reset after", OFFLINE, NO_ANSWER),
    ("reset mid-body", OFFLINE, NO_ANSWER),
    ("close", OFFLINE, "closed the connection"),
    ("lost", OFFLINE, "closed the connection"),
    ("close mid-body", OFFLINE, NO_ANSWER),
    ("cut", RETRY, SENSELESS),
    ("hang 0.01", OFFLINE, "closed the connection"),
    # -- not HTTP
    ("raw SSH-2.0-OpenSSH_9\\r\\n", OFFLINE, NO_ANSWER),
    ("raw \\x15\\x03\\x01\\x00\\x02\\x02\\x28", OFFLINE, NO_ANSWER),
    (raw("200 OK", "Content-Length: 5, 7", body="12345"), OFFLINE, NO_ANSWER),
    (raw("200 OK", "Content-Length: -1"), OFFLINE, NO_ANSWER),
    (raw("200 OK", "Content-Length: 99", body="{}"), OFFLINE, NO_ANSWER),
    (raw("200 OK", "Transfer-Encoding: chunked", body="zz\\r\\nhello"), OFFLINE, NO_ANSWER),
    (raw("200 OK", "Transfer-Encoding: chunked", body="5\\r\\nhelloWORLD\\r\\n"), OFFLINE, NO_ANSWER),
    (raw("200 OK", "Transfer-Encoding: chunked", body="ffffffffffffffffffff\\r\\nhello"), OFFLINE, NO_ANSWER),
    (raw("200 OK", "Transfer-Encoding: gzip, chunked", body="0\\r\\n\\r\\n"), OFFLINE, NO_ANSWER),
    (raw("999 Odd"), RETRY, "999"),
    (raw("101 Switching Protocols", "Upgrade: h2c", "Connection: upgrade"), OFFLINE, "SWITCH"),
    # -- without end
    ("huge", OFFLINE, "larger than 8 MiB"),
    ("flood HTTP/1.1 100 Continue\\r\\n\\r\\n", OFFLINE, "no answer in time"),
    ("flood HTTP/1.1 200 OK\\r\\n|X-More: and more\\r\\n", OFFLINE, NO_ANSWER),
    ("flood HTTP/1.1 200 OK\\r\\nX-Long: |and longer", OFFLINE, NO_ANSWER),
    (f"{CHUNKED}|1000\\r\\n{'x' * 4096}\\r\\n", OFFLINE, "larger than 8 MiB"),
    ("flood HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5;|ext", OFFLINE, NO_ANSWER),
    ("flood HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n|a: b\\r\\n", OFFLINE, NO_ANSWER),
    # -- not a response of the API
    ("html", RETRY, "(text/html; charset=utf-8, 107 bytes): sign in to this network if it asks for that"),
    (raw("200 OK", JSON, body="<html>"), RETRY, SENSELESS),
    (raw("200 OK", "Content-Type: text/plain", "Content-Encoding: br", body="{}"), RETRY, "(text/plain, br, 2 bytes)"),
    ("bomb", RETRY, "gzip, gzip"),
    ("json 7", RETRY, SENSELESS),
    ("json [[]]", RETRY, SENSELESS),
    ('json {"upload_url": 7, "sandbox_id": [], "status": {}}', RETRY, SENSELESS),
    (raw("200 OK", JSON, body=DEEP), RETRY, SENSELESS),
    ("204", RETRY, "204"),
    ("202", RETRY, "202"),
    ("206", RETRY, "206"),
    # -- redirects
    *(
        (f"{status} location=http://127.0.0.1:9/x", RETRY, f"redirect ({status})")
        for status in (301, 302, 303, 307, 308)
    ),
    ("307 location=https://elsewhere.example/", RETRY, "redirect (307)"),
    ("304", RETRY, "redirect (304)"),
    # -- proxies
    ("407", RETRY, "407"),
    ("511", RETRY, "511"),
    # -- what a person must fix
    ("401", REFUSED, "refused the key from the test (401"),
    ("402", REFUSED, "402, Payment Required): look at the account"),
    ("403", REFUSED, "refused the key from the test (403"),
    ("404", REFUSED, "knows no sandbox 'box' (404"),
    ("405", REFUSED, "405, Method Not Allowed): correct sandbox.base_url with"),
    ("410", REFUSED, "knows no sandbox 'box' (410"),
    ("422", REFUSED, "region 'us' (422"),
    ("451", REFUSED, "correct sandbox.base_url with `syncd config edit`"),
    # -- what passes by itself
    *((f"{status}", RETRY, f"{status}") for status in (408, 409, 421, 423, 425, 429, 500, 501, 502, 503, 504, 599)),
    # -- no failure at all
    ("slow 20000", None, ""),
    ("skew 86400", None, ""),
    ("skew -86400", None, ""),
]
URL_ROWS = [
    (f"json {WIDE}", RETRY, SENSELESS),
    ("400", REFUSED, "region 'us' (400"),
]
INITIALIZE_ROWS = [
    ("error no space left", RETRY, "could not take the archive (no space left)"),
    ("400", AGAIN, "400"),
    (raw("503 Busy", "Set-Cookie: a=" + "b" * 4000), RETRY, "503"),
]
BUCKET_ROWS = [
    # -- the connection
    ("reset", OFFLINE, "cut off"),
    ("reset mid-body", OFFLINE, "cut off"),
    ("reset after", OFFLINE, "cut off"),
    ("close", OFFLINE, "cut off"),
    ("close mid-body", OFFLINE, "cut off"),
    ("lost", OFFLINE, "cut off (the other side closed"),
    ("hang 0.01", OFFLINE, "cut off"),
    # -- responses before or during the upload
    ("503 before", RETRY, "503 ServiceUnavailable"),
    ("503 mid-body", RETRY, "503 ServiceUnavailable"),
    ("503 after", RETRY, "503 ServiceUnavailable"),
    ("400 before code=ExpiredToken", FRESH, "400 ExpiredToken"),
    # -- not HTTP, or without end
    ("raw SSH-2.0-OpenSSH_9\\r\\n", OFFLINE, "cut off"),
    (raw("200 OK", "Transfer-Encoding: chunked", body="zz\\r\\nhello"), OFFLINE, "cut off"),
    ("flood HTTP/1.1 103 Early Hints\\r\\n\\r\\n", OFFLINE, "no answer in time"),
    ("flood HTTP/1.1 200 OK\\r\\n|X-More: and more\\r\\n", OFFLINE, "cut off"),
    ("huge", OFFLINE, "larger than 8 MiB"),
    # -- not a response of a bucket
    ("html", RETRY, "is not Klavis' storage (text/html; charset=utf-8, 107 bytes, no checksum): sign in"),
    ("json {}", RETRY, "is not Klavis' storage (application/json, 2 bytes, no checksum)"),
    ("bomb", RETRY, "is not Klavis' storage"),
    ("201", RETRY, "201"),
    ("204", RETRY, "204"),
    ("304", RETRY, "redirect (304)"),
    *(
        (f"{status} location=http://127.0.0.1:9/x", RETRY, f"redirect ({status})")
        for status in (301, 302, 303, 307, 308)
    ),
    (raw("101 Switching Protocols", "Upgrade: h2c", "Connection: upgrade"), OFFLINE, "SWITCH"),
    ("407", RETRY, "407"),
    # -- checksums
    ("wrong-hash", AGAIN, "crc32c"),
    ("two-hashes", AGAIN, "crc32c"),
    ("corrupt", AGAIN, "crc32c"),
    (raw("200 OK", "x-goog-hash: crc32c=", "Content-Length: 0", "Connection: close"), AGAIN, "crc32c"),
    (raw("200 OK", "x-goog-hash: md5=AAAA,crc32c=AAAAAA==", "Content-Length: 0", "Connection: close"), AGAIN, "md5"),
    ("no-hash", None, ""),
    # -- the URL
    ("expired", FRESH, "400 ExpiredToken"),
    ("forbidden", FRESH, "403 SignatureDoesNotMatch"),
    ("401", FRESH, "401"),
    ("404", FRESH, "404 NoSuchKey"),
    ("410", FRESH, "410"),
    ("411", FRESH, "411"),
    ("412", FRESH, "412"),
    ("400 code=MalformedSecurityHeader", FRESH, "MalformedSecurityHeader"),
    # -- what a person must fix, and what passes by itself
    ("413", REFUSED, "413"),
    ("400 code=EntityTooLarge", REFUSED, "takes no archive of this size (400 EntityTooLarge)"),
    *((f"{status}", RETRY, f"{status}") for status in (408, 429, 500, 502, 503, 504)),
    # -- no failure at all
    ("slow 20000", None, ""),
    ("skew 86400", None, ""),
    ("two-hashes skip=9", None, ""),
]
ROWS = [
    *((f"upload-url: {fault}", action, says) for fault, action, says in [*API_ROWS, *URL_ROWS]),
    *((f"upload: {fault}", action, says) for fault, action, says in BUCKET_ROWS),
    *((f"initialize: {fault}", action, says) for fault, action, says in [*API_ROWS, *INITIALIZE_ROWS]),
]
# The requests of each kind if the fault happens once.
ONCE = {
    ("upload-url", RETRY): "2 1 1",
    ("upload-url", OFFLINE): "2 1 1",
    ("upload", RETRY): "1 2 1",
    ("upload", OFFLINE): "1 2 1",
    ("upload", AGAIN): "1 2 1",
    ("upload", FRESH): "2 2 1",
    ("initialize", RETRY): "1 1 2",
    ("initialize", OFFLINE): "1 1 2",
    ("initialize", AGAIN): "1 2 2",
}
# The requests of each kind if the fault lasts: None for the kind that is retried until syncd gives up.
LASTING = {
    ("upload-url", RETRY): (None, 0, 0),
    ("upload-url", OFFLINE): (None, 0, 0),
    ("upload-url", REFUSED): (1, 0, 0),
    ("upload", RETRY): (1, None, 0),
    ("upload", OFFLINE): (1, None, 0),
    ("upload", AGAIN): (1, None, 0),
    ("upload", FRESH): (None, None, 0),
    ("upload", REFUSED): (1, 1, 0),
    ("initialize", RETRY): (None, 1, None),  # attempts begin with the cheapest request then
    ("initialize", OFFLINE): (1, 1, None),
    ("initialize", AGAIN): (1, None, None),
    ("initialize", REFUSED): (1, 1, 1),
}


def row_id(value: object) -> str | None:
    """Return a row's fault, shortened."""
    return value[:60] if isinstance(value, str) and ": " in value[:14] else None


@pytest.fixture
def row_rig(recorded: Rig, request: pytest.FixtureRequest) -> Rig:
    """The recorded rig, with short timeouts if the row's fault needs them."""
    fault = request.node.callspec.params["fault"]
    if ENDLESS in fault:
        request.getfixturevalue("short_timeouts")
    return recorded


@pytest.mark.parametrize(("fault", "action", "says"), ROWS, ids=row_id)
def test_a_fault_that_happens_once(row_rig: Rig, fault: str, action: FailureAction | None, says: str) -> None:
    """The sync recovers with the fewest requests, or fails at once with a one-line message."""
    op = fault.partition(":")[0]
    row_rig.emulator.faults.script(fault)
    if action is REFUSED:
        failure = row_rig.fail()[0]
    else:
        observer = row_rig.sync()[1]
        if action is None:
            assert observer.failures == []
            assert request_counts(row_rig) == "1 1 1"
            converge(row_rig)
            return
        (failure,) = observer.failures
        assert request_counts(row_rig) == ONCE[op, action]
        assert (observer.waits[0] == 0.0) is (action is FRESH)
    assert (failure.step, failure.action) == (ApiStep(op), action)
    assert says in str(failure.as_error())
    converge(row_rig)


def _lasting() -> list[object]:
    """Return the faults that can last; all but the first and the last of those that lead to the same are long tests."""
    by_outcome: dict[object, list[object]] = {}
    for row in ROWS:
        if row[1] is not None and ENDLESS not in row[0]:
            by_outcome.setdefault((row[0].partition(":")[0], row[1]), []).append(row)
    long = (pytest.param(*row, marks=pytest.mark.long) for rows in by_outcome.values() for row in rows[1:-1])
    return [*(row for rows in by_outcome.values() for row in dict.fromkeys((rows[0], rows[-1]))), *long]


@pytest.mark.parametrize(("fault", "action", "says"), _lasting(), ids=row_id)
def test_a_fault_that_lasts(row_rig: Rig, fault: str, action: FailureAction, says: str) -> None:
    """The sync fails with the right exit code and message, after a bounded number of requests."""
    op = fault.partition(":")[0]
    row_rig.emulator.faults.script(f"{fault} always")
    failure = row_rig.fail()[0]
    assert (failure.step, failure.action) == (ApiStep(op), action)
    assert says in str(failure.as_error())
    assert failure.as_error().exit_code == (78 if action is REFUSED else 75)
    for asked, most in zip(map(int, request_counts(row_rig).split()), LASTING[op, action], strict=True):
        assert asked == most if most is not None else 1 < asked <= MAX_IN_A_MINUTE
    if op != "initialize":
        assert row_rig.arrived() == {}
    converge(row_rig)


# -- servers that cannot be reached or trusted

EXPIRED = ("-not_before", "20200101000000Z", "-not_after", "20200201000000Z")
NOT_YET_VALID = ("-not_before", "20900101000000Z", "-not_after", "20910101000000Z")


@pytest.mark.parametrize("op", ["upload-url", "upload"])
@pytest.mark.parametrize(
    ("name", "more", "reusable", "says"),
    [
        ("DNS:localhost", (), False, "not trusted here (set SSL_CERT_FILE"),
        ("DNS:elsewhere.example", (), True, "certificate is for another host"),
        ("DNS:localhost", EXPIRED, True, "has expired (or is this machine's clock ahead?)"),
        ("DNS:localhost", NOT_YET_VALID, True, "not valid yet (is this machine's clock behind?)"),
    ],
)
def test_an_untrusted_certificate(
    recorded: Rig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    op: str,
    name: str,
    more: tuple[str, ...],
    reusable: bool,
    says: str,
) -> None:
    """A server without a trusted certificate gets neither key nor archive, and the message says what to do."""
    context, certificate = server_tls(tmp_path, name, *more)
    if reusable:
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
    got: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            got.append(wrapped.recv(65_536))

    with answering(talk) as port:
        sync_to_unreachable(recorded, op, f"https://localhost:{port}", says)
    assert got in ([], [b""] * len(got))


def no_response(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.recv(65_536)


def http_response(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def reset(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("op", ["upload-url", "upload"])
@pytest.mark.parametrize(
    ("talk", "says"),
    [
        (no_response, "cannot be reached (no connection within"),
        (http_response, "no TLS is spoken on that port"),
        (reset, "the other side closed the connection"),
    ],
)
def test_a_port_without_tls(
    recorded: Rig, monkeypatch: pytest.MonkeyPatch, op: str, talk: Callable[[socket.socket], None], says: str
) -> None:
    """The port of an https address does not answer in TLS."""
    if talk is no_response:
        monkeypatch.setattr(http_client, "CONNECT_S", 0.2)
    recorded.keys["retry"]["give_up_after_seconds"] = 3
    with answering(talk) as port:
        sync_to_unreachable(recorded, op, f"https://localhost:{port}", says)


def sync_to_unreachable(recorded: Rig, op: str, url: str, says: str) -> None:
    """Sync with the API or bucket at this address, which fails, then with its own address again."""
    base_url = recorded.emulator.base_url
    if op == "upload-url":
        recorded.keys["sandbox"]["base_url"] = url
    else:
        answer = json.dumps({"upload_url": f"{url}/o?X-Goog-Signature=5ECRET", "expires_in_minutes": 30})
        recorded.emulator.faults.script(f"upload-url: json {answer} always")
    failure = recorded.fail()[0]
    assert (failure.step, failure.action, failure.as_error().exit_code) == (ApiStep(op), OFFLINE, 75)
    assert says in str(failure)
    assert "5ECRET" not in str(failure)
    assert recorded.asked().count("upload") == 0
    recorded.restart()
    recorded.keys["sandbox"]["base_url"] = base_url
    if op == "upload":
        recorded.clock.go_on(1800)  # the unreachable URL has expired
    converge(recorded)
