"""What goes wrong on the network, as a table: what it means, what it costs, what a person reads, and that it ends well.

Each row is a fault in the emulator's language. It is met once, and it is met for as long as there is patience; after
both the next sync must bring everything over, and no word that was said may hold the key or what signs a URL.
"""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
import socket
import ssl
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.clock import SystemClock
from syncd.core.interrupt import Interrupt
from syncd.core.waiter import Waiter
from syncd.emulator import RequestRecord
from syncd.emulator.bad_responses import bomb
from syncd.emulator.bucket import Key
from syncd.remote import api, api_client, bucket, exchange_monitor, http_client
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.retry import LONGEST_RETRY_AFTER_S
from tests.clock import NOON_S, ScriptedClock
from tests.integration.sync_rig import KEY, SANDBOX, Rig, Witness, rigged

OPS = ("upload-url", "upload", "initialize")
RETRY, OFFLINE, FRESH, AGAIN, REFUSED = (
    FailureAction.RETRY,
    FailureAction.OFFLINE,
    FailureAction.RENEW_URL,
    FailureAction.UPLOAD_AGAIN,
    FailureAction.REFUSED,
)
# The most requests of the failing kind that a minute's patience costs, with waits from 1 to 8 s.
MOST_IN_A_MINUTE = 16
_SECRET = re.compile(r"(?i)goog-|signature=|[0-9a-f]{64}")

DEEP = '{"x":' * 5000
WIDE = json.dumps({"upload_url": "https://h/" + "o" * 900_000, "expires_in_minutes": 30})


@dataclass
class Ear:
    """All that was said."""

    rig: Rig
    log: pytest.LogCaptureFixture
    witnesses: list[Witness]
    failures: list[StepFailed]

    def sync(self, sync_mode: SyncMode = SyncMode.CHANGED) -> Witness:
        """One sync that must succeed."""
        witness = Witness(self.rig.clock)
        self.witnesses.append(witness)
        assert self.rig.sync(sync_mode, witness)[0].word == "initialized"
        return witness

    def fail(self) -> StepFailed:
        """One sync that must fail."""
        failure, witness = self.rig.fail()
        self.witnesses.append(witness)
        self.failures.append(failure)
        return failure

    def met(self) -> tuple[StepFailed, list[float]]:
        """The one failure on the way to a success, be it in the same sync or in one before it; the waits for it."""
        witness = Witness(self.rig.clock)
        self.witnesses.append(witness)
        try:
            self.rig.sync(witness=witness)
        except StepFailed as refused:
            self.failures.append(refused)
            self.sync()
            return refused, witness.waits
        (failure,) = witness.failures
        return failure, witness.waits

    def converge(self) -> None:
        """Nothing goes wrong any more: the next sync brings everything over."""
        self.rig.emulator.faults.clear()
        self.rig.write("b.txt", "after it")
        witness = self.sync()
        assert witness.failures == []
        assert self.rig.arrived() == {file.name: file.read_text() for file in self.rig.workspace.iterdir()}

    def await_arrival(self, wanted: dict[str, str]) -> None:
        """Waits until the sandbox holds these files and no others."""
        clock = SystemClock()
        deadline_s = clock.monotonic_s() + 20
        while True:
            found: dict[str, str] | None = None
            with suppress(FileNotFoundError):  # it is being replaced
                found = self.rig.arrived()
            if found == wanted:
                return
            assert clock.monotonic_s() < deadline_s, found
            clock.sleep(0.01)

    def costs(self) -> str:
        """How many requests of each kind there were."""
        return " ".join(str(self.rig.asked().count(op)) for op in OPS)

    def leaks(self) -> list[str]:
        """What was said that nobody may read."""
        met = [*self.failures, *(failure for witness in self.witnesses for failure in witness.failures)]
        said = [record.getMessage() + str(record.exc_info or "") for record in self.log.records]
        for failure in met:
            error = failure.as_error()
            said += [str(failure), repr(failure), str(error), repr(error), str(failure.__cause__)]
            assert "\n" not in str(error)
            assert str(error).isprintable()
            assert len(str(error)) < 400
        return [text for text in said if KEY in text or _SECRET.search(text)]


@pytest.fixture
def ear(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Ear]:
    """A workspace with one file, where it goes, and all that is said on the way."""
    caplog.set_level(logging.DEBUG, "syncd")
    caplog.set_level(logging.INFO, "httpx")
    logging.getLogger("httpx").addFilter(_nothing)
    with rigged(tmp_path) as rig:
        rig.write()
        ear = Ear(rig, caplog, [], [])
        yield ear
        assert ear.leaks() == []
    logging.getLogger("httpx").removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    """What the process sets up for httpx's log lines, which hold URLs."""
    return False


# Answers that only the time ends, and that keep a processor busy until then.
ENDLESS = "flood HTTP/1.1 10"


def raw(status: str, *headers: str, body: str = "", ends: str = "\\r\\n") -> str:
    """`raw …` for this answer."""
    return "raw " + "\\r\\n".join([f"HTTP/1.1 {status}", *headers]) + ends + "\\r\\n" + body


CHUNKED = "flood HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
JSON = "Content-Type: application/json"
MUTE = "did not answer"
SENSELESS = "is invalid"

# step: fault | verdict (None: no failure) | requests of each kind, if it is met once | what the person reads
API_ROWS = [
    # -- the connection
    ("reset", OFFLINE, MUTE),
    ("reset after", OFFLINE, MUTE),
    ("reset mid-body", OFFLINE, MUTE),
    ("close", OFFLINE, "Server disconnected"),
    ("lost", OFFLINE, "Server disconnected"),
    ("close mid-body", OFFLINE, MUTE),
    ("cut", RETRY, SENSELESS),
    ("hang 0.01", OFFLINE, "Server disconnected"),
    # -- what is no HTTP
    ("raw SSH-2.0-OpenSSH_9\\r\\n", OFFLINE, MUTE),
    ("raw \\x15\\x03\\x01\\x00\\x02\\x02\\x28", OFFLINE, MUTE),
    (raw("200 OK", "Content-Length: 5, 7", body="12345"), OFFLINE, MUTE),
    (raw("200 OK", "Content-Length: -1"), OFFLINE, MUTE),
    (raw("200 OK", "Content-Length: 99", body="{}"), OFFLINE, MUTE),
    (raw("200 OK", "Transfer-Encoding: chunked", body="zz\\r\\nhello"), OFFLINE, MUTE),
    (raw("200 OK", "Transfer-Encoding: chunked", body="5\\r\\nhelloWORLD\\r\\n"), OFFLINE, MUTE),
    (raw("200 OK", "Transfer-Encoding: chunked", body="ffffffffffffffffffff\\r\\nhello"), OFFLINE, MUTE),
    (raw("200 OK", "Transfer-Encoding: gzip, chunked", body="0\\r\\n\\r\\n"), OFFLINE, MUTE),
    (raw("999 Odd"), RETRY, "999"),
    (raw("101 Switching Protocols", "Upgrade: h2c", "Connection: upgrade"), OFFLINE, "SWITCH"),
    # -- without end
    ("huge", OFFLINE, "larger than 1 MiB"),
    ("flood HTTP/1.1 100 Continue\\r\\n\\r\\n", OFFLINE, "no answer in time"),
    ("flood HTTP/1.1 200 OK\\r\\n|X-More: and more\\r\\n", OFFLINE, MUTE),
    ("flood HTTP/1.1 200 OK\\r\\nX-Long: |and longer", OFFLINE, MUTE),
    (f"{CHUNKED}|1000\\r\\n{'x' * 4096}\\r\\n", OFFLINE, "larger than 1 MiB"),
    ("flood HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5;|ext", OFFLINE, MUTE),
    ("flood HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n|a: b\\r\\n", OFFLINE, MUTE),
    # -- what is no answer of the API's
    ("html", RETRY, "(text/html; charset=utf-8, 107 bytes): is this network asking for a sign-in?"),
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
    # -- what a person must mend
    ("401", REFUSED, "refused the key from the test (401"),
    ("402", REFUSED, "402, Payment Required): look at the account"),
    ("403", REFUSED, "refused the key from the test (403"),
    ("404", REFUSED, "knows no sandbox 'box' (404"),
    ("405", REFUSED, "405, Method Not Allowed): check sandbox.base_url"),
    ("410", REFUSED, "knows no sandbox 'box' (410"),
    ("422", REFUSED, "region 'us' (422"),
    ("451", REFUSED, "check sandbox.base_url"),
    # -- what passes
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
    ("error no space left", RETRY, "could not take the archive: no space left"),
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
    ("lost", OFFLINE, "cut off (Server disconnected"),
    ("hang 0.01", OFFLINE, "cut off"),
    # -- answered too early, or in the middle
    ("503 before", RETRY, "503 ServiceUnavailable"),
    ("503 mid-body", RETRY, "503 ServiceUnavailable"),
    ("503 after", RETRY, "503 ServiceUnavailable"),
    ("400 before code=ExpiredToken", FRESH, "400 ExpiredToken"),
    # -- what is no HTTP, or has no end
    ("raw SSH-2.0-OpenSSH_9\\r\\n", OFFLINE, "cut off"),
    (raw("200 OK", "Transfer-Encoding: chunked", body="zz\\r\\nhello"), OFFLINE, "cut off"),
    ("flood HTTP/1.1 103 Early Hints\\r\\n\\r\\n", OFFLINE, "no answer in time"),
    ("flood HTTP/1.1 200 OK\\r\\n|X-More: and more\\r\\n", OFFLINE, "cut off"),
    ("huge", OFFLINE, "larger than 1 MiB"),
    # -- what is no answer of a bucket's
    ("html", RETRY, "is no bucket (text/html; charset=utf-8, 107 bytes, no checksum): is this"),
    ("json {}", RETRY, "is no bucket (application/json, 2 bytes, no checksum)"),
    ("bomb", RETRY, "is no bucket"),
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
    # -- what a person must mend, and what passes
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
# What a failure costs that is met once: requests of each kind.
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
# What it costs while it lasts: None for the kind that fails and may be asked for as long as there is patience.
LASTING = {
    ("upload-url", RETRY): (None, 0, 0),
    ("upload-url", OFFLINE): (None, 0, 0),
    ("upload-url", REFUSED): (1, 0, 0),
    ("upload", RETRY): (1, None, 0),
    ("upload", OFFLINE): (1, None, 0),
    ("upload", AGAIN): (1, None, 0),
    ("upload", FRESH): (None, None, 0),
    ("upload", REFUSED): (1, 1, 0),
    ("initialize", RETRY): (1, 1, None),
    ("initialize", OFFLINE): (1, 1, None),
    ("initialize", AGAIN): (1, None, None),
    ("initialize", REFUSED): (1, 1, 1),
}


def named(value: object) -> str | None:
    """A row's name: its fault, shortened."""
    return value[:60] if isinstance(value, str) and ": " in value[:14] else None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in earnest is made short."""
    for module, name in ((api_client, "_READ_S"), (api, "INITIALIZE_S"), (bucket, "_READ_S")):
        monkeypatch.setattr(module, name, 0.6)
    monkeypatch.setattr(http_client, "WRITE_S", 2.0)


@pytest.fixture
def rows(ear: Ear, request: pytest.FixtureRequest) -> Ear:
    """The ear, impatient where the row's fault takes time."""
    fault = request.node.callspec.params["fault"]
    if ENDLESS in fault:
        request.getfixturevalue("impatient")
    return ear


@pytest.mark.parametrize(("fault", "action", "says"), ROWS, ids=named)
def test_met_once(rows: Ear, fault: str, action: FailureAction | None, says: str) -> None:
    """It is ridden out at the least cost, or refused at once, and said in one line."""
    op = fault.partition(":")[0]
    rows.rig.emulator.faults.script(fault)
    if action is REFUSED:
        failure = rows.fail()
    else:
        witness = rows.sync()
        if action is None:
            assert witness.failures == []
            assert rows.costs() == "1 1 1"
            rows.converge()
            return
        (failure,) = witness.failures
        assert rows.costs() == ONCE[op, action]
        assert (witness.waits[0] == 0.0) is (action is FRESH)
    assert (failure.step, failure.action) == (ApiStep(op), action)
    assert says in str(failure.as_error())
    rows.converge()


@pytest.mark.parametrize(
    ("fault", "action", "says"), [row for row in ROWS if row[1] is not None and ENDLESS not in row[0]], ids=named
)
def test_met_for_ever(rows: Ear, fault: str, action: FailureAction, says: str) -> None:
    """It ends with the right exit code and line, after a bounded number of requests, and nothing is taken for done."""
    op = fault.partition(":")[0]
    rows.rig.emulator.faults.script(f"{fault} always")
    failure = rows.fail()
    assert (failure.step, failure.action) == (ApiStep(op), action)
    assert says in str(failure.as_error())
    assert failure.as_error().exit_code == (78 if action is REFUSED else 75)
    for asked, most in zip(map(int, rows.costs().split()), LASTING[op, action], strict=True):
        assert asked == most if most is not None else 1 < asked <= MOST_IN_A_MINUTE
    if op != "initialize":
        assert rows.rig.arrived() == {}
    rows.converge()


@pytest.mark.parametrize("op", OPS)
def test_every_status(ear: Ear, op: str) -> None:
    """No status of the registry, nor an unknown one, is taken for a success or left without a meaning."""
    known = [*range(400, 419), 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, *range(500, 509), 510, 511, 520, 599]
    for status in known:
        ear.rig.write(content=f"for {status}")
        ear.rig.emulator.faults.script(f"{op}: {status} retry-after=7")
        before = ear.rig.emulator.request_log.count(op)
        failure, waits_s = ear.met()
        assert str(status) in str(failure)
        assert ear.rig.emulator.request_log.count(op) <= before + 2
        if failure.action is REFUSED:
            assert waits_s == []
            assert failure.as_error().exit_code == 78
        else:
            assert failure.action in (RETRY, FRESH, AGAIN)
            assert waits_s == [0.0 if failure.action is FRESH else 7.0]
        ear.rig.clock.go_on(1800 if op == "upload-url" else 60)  # no URL lives so long


AHEAD = formatdate(NOON_S + 25, usegmt=True)


@pytest.mark.parametrize(
    ("value", "waits_s"),
    [
        ("25", 25),
        ("0", None),
        ("-5", None),
        ("1.5", None),
        ("+9", None),
        ("\u0662", None),
        ("99999999999999999999999999", LONGEST_RETRY_AFTER_S),
        ("soon", None),
        ("25, 25", None),
        ("inf", None),
        ("0x10", None),
        (AHEAD, 25),
        (AHEAD.replace("GMT", "+0000"), 25),
        (AHEAD.removesuffix(" GMT"), 25),
        (AHEAD.replace("GMT", "-0000"), 25),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_RETRY_AFTER_S),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Mon, 00 Foo 0000 99:99:99 GMT", None),
        ("x" * 30_000, None),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("op", OPS)
def test_every_retry_after(ear: Ear, op: str, value: str, waits_s: float | None) -> None:
    """Seconds and dates are a least wait, an hour is the longest, and what is neither is as nothing."""
    ear.rig.keys["retry"]["give_up_after_seconds"] = 10_000
    ear.rig.emulator.faults.script(f"{op}: 503 retry-after={value}")
    (wait_s,) = ear.sync().waits
    assert wait_s == waits_s if waits_s is not None else 0.5 <= wait_s <= 1
    ear.converge()


@pytest.mark.parametrize("op", ["upload-url", "initialize"])
def test_a_wait_is_by_the_servers_date(ear: Ear, op: str) -> None:
    """A date is told by the clock that wrote it, ours may be off by hours."""
    later = formatdate(NOON_S + 7200 + 25, usegmt=True)
    now = formatdate(NOON_S + 7200, usegmt=True)
    ear.rig.emulator.faults.script(f"{op}: {raw('503 Busy', f'Date: {now}', f'Retry-After: {later}')}")
    assert ear.sync().waits == [25]


# -- time


@pytest.mark.parametrize(
    "fault",
    [
        "upload-url: drip 0.02",
        "initialize: drip 0.02",
        "upload: drip 0.02",
        "upload-url: hang 600",
        "upload: hang 600 after",
        "upload-url: hang 600 mid-body",
        "initialize: delay 600",
        "initialize: slow 30",
    ],
)
@pytest.mark.usefixtures("impatient")
def test_an_answer_has_an_end(ear: Ear, fault: str) -> None:
    """One that comes in drops, stops half-way or never begins costs its time once, and is then no answer."""
    began_s = SystemClock().monotonic_s()
    ear.rig.emulator.faults.script(fault)
    (failure,) = ear.sync().failures
    assert SystemClock().monotonic_s() - began_s < 5
    assert failure.action is OFFLINE
    assert "no answer in time" in str(failure)
    ear.converge()


@pytest.mark.usefixtures("impatient")
def test_a_slow_link_is_no_failure(ear: Ear) -> None:
    """Sending may take longer than any answer may, as long as it goes on: the time for the answer begins after it."""
    fill(ear.rig.workspace / "random", 2 << 20)
    ear.rig.emulator.faults.script("upload: slow 800000")
    began_s = SystemClock().monotonic_s()
    assert ear.sync().failures == []
    assert SystemClock().monotonic_s() - began_s > 2 * bucket._READ_S


def fill(path: Path, size_bytes: int = 12 << 20) -> None:
    """Nothing that can be compressed, and by default more than all the buffers on the way hold."""
    path.write_bytes(random.Random(1).randbytes(size_bytes))


@pytest.mark.usefixtures("impatient")
def test_a_server_that_never_reads(ear: Ear) -> None:
    """An upload that nobody takes is cut off once the time for one send is over."""
    fill(ear.rig.workspace / "random")
    ear.rig.emulator.faults.script("upload: hang 600")
    (failure,) = ear.sync().failures
    assert failure.action is OFFLINE
    assert "cut off (the other side stopped reading)" in str(failure)
    assert ear.costs() == "1 2 1"


def test_a_large_upload_refused_early(ear: Ear) -> None:
    """An answer that comes before the body was sent is heard, even if the connection then breaks under the sending."""
    fill(ear.rig.workspace / "random")
    ear.rig.emulator.faults.script("upload: 503 before retry-after=9", "upload: expired before")
    witness = ear.sync()
    assert [failure.action for failure in witness.failures] == [RETRY, FRESH]
    assert witness.waits == [9, 0]
    assert ear.costs() == "2 3 1"


def test_a_bomb_does_not_go_off(ear: Ear) -> None:
    """Nothing is decoded: no answer takes more memory than it has bytes."""
    ear.sync()
    ear.rig.write(content="more")
    ear.rig.emulator.faults.script("initialize: bomb always")
    bomb()  # made once, and that takes memory
    tracemalloc.start()
    try:
        ear.fail()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# -- clocks


@dataclass
class Shifted(ScriptedClock):
    """A clock whose wall time is off, beside the emulator's, which is right."""

    right: ScriptedClock | None = None
    off_s: float = 0.0

    def go_on(self, seconds: float) -> None:
        super().go_on(seconds)
        if self.right is not None:
            self.right.go_on(seconds)

    def suspend(self, seconds: float) -> None:
        self.boottime += seconds
        self.wall += seconds


@pytest.mark.parametrize("off_s", [-6 * 3600, -900, 900, 6 * 3600])
@pytest.mark.parametrize("dated", ["as it is", "without a date", "hours ahead", "hours behind"])
def test_clocks_that_disagree(ear: Ear, off_s: float, dated: str) -> None:
    """Wrong clocks on either side cost at most a URL more, and never a wait or an upload in vain but one."""
    right = ear.rig.clock
    ear.rig.clock = Shifted(right.monotonic, right.boottime, right.wall + off_s, right=right)
    ear.rig.client = http_client.HttpClient(Waiter(Interrupt(), ear.rig.clock))
    url = {"hours ahead": "skew 7200", "hours behind": "skew -7200"}.get(dated)
    if url:
        ear.rig.emulator.faults.script(f"upload-url: {url} always")
    if dated == "without a date":
        key = Key("us", SANDBOX, "workspace.tar.gz")
        signed = ear.rig.emulator._bucket.url("PUT", key, 1800)
        body = json.dumps({"upload_url": signed, "expires_in_minutes": 30})
        ear.rig.emulator.faults.script(f"upload-url: {raw('200 OK', JSON, body=body)}")
    for number in range(8):  # over the URL's life
        ear.rig.write(content=f"text {number}")
        witness = ear.sync()
        assert set(witness.waits) <= {0.0}
        ear.rig.clock.go_on(300)
    assert ear.rig.asked().count("upload-url") <= 3
    assert ear.rig.asked().count("upload") <= 9
    assert ear.rig.arrived() == {"a.txt": "text 7"}


def test_a_url_that_ends_under_the_upload(ear: Ear) -> None:
    """A connection that is cut after the URL's end is no network fault: a fresh one at once."""
    gone: list[RequestRecord] = []

    def overtake(entry: RequestRecord) -> None:
        if not gone:
            ear.rig.clock.go_on(1801)
        gone.append(entry)

    ear.rig.emulator.faults.on("upload", "mid-body", overtake)
    ear.rig.emulator.faults.script("upload: reset mid-body")
    witness = ear.sync()
    assert [failure.action for failure in witness.failures] == [FRESH]
    assert "expired during the upload" in str(witness.failures[0])
    assert ear.costs() == "2 2 1"


def test_an_object_that_someone_replaced(ear: Ear) -> None:
    """Who else writes to the same sandbox cannot be seen: `initialize` names no object. A forced sync takes it back."""
    foreign = ear.rig.folder / "foreign.tar.gz"
    subprocess.run(["tar", "czf", foreign, "-C", "/", "--transform=s/.*/theirs.txt/", "etc/hostname"], check=True)
    done = threading.Event()

    def replace(_: RequestRecord) -> None:
        if not done.is_set():
            done.set()
            ear.rig.emulator._bucket.store(Key("us", SANDBOX, "workspace.tar.gz"), Content(foreign.read_bytes()))

    ear.rig.emulator.faults.on("initialize", "before", replace)
    assert ear.sync().failures == []
    assert set(ear.rig.arrived()) == {"theirs.txt"}
    ear.sync(SyncMode.FORCED)
    assert ear.rig.arrived()["a.txt"] == "hello"


class Content:
    """Bytes as a request's body."""

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._left = content

    def read(self, limit: int = 1 << 20, /) -> bytes:
        piece, self._left = self._left[:limit], self._left[limit:]
        return piece


# -- connections


@pytest.mark.parametrize("op", OPS)
def test_an_answer_that_comes_twice(ear: Ear, op: str) -> None:
    """The second is never taken for the next request's answer, whatever it says; that costs a request more at most."""
    ear.rig.emulator.faults.script(f"{op}: twice always")
    for number in range(3):
        ear.rig.write(content=f"text {number}")
        ear.sync()
        # An `initialize` whose answer was not waited for may still be at work, and takes the file away for a moment.
        ear.await_arrival({"a.txt": f"text {number}"})
    assert max(map(int, ear.costs().split())) <= 6


def test_the_second_answer_is_none_however_late_it_is_looked_at(ear: Ear) -> None:
    """What was read with the answer before is left over, also where the genuine answer has come meanwhile."""
    answered = threading.Semaphore(0)

    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst" * 2)
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngenuine")
        answered.release()
        connection.recv(1 << 16)

    def late(self: exchange_monitor.ExchangeMonitor, name: str, info: dict[str, object]) -> None:
        if name.endswith("receive_response_headers.started") and asked == [1, 2]:
            assert answered.acquire(timeout=20)
        hear(self, name, info)

    asked: list[int] = []
    hear = exchange_monitor.ExchangeMonitor.trace
    with served(talk) as port, pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange_monitor.ExchangeMonitor, "trace", late)
        url = f"http://127.0.0.1:{port}/"
        asked.append(1)
        assert ear.rig.client.exchange("GET", url, headers={}, read_s=20).body == b"first"
        asked.append(2)
        with pytest.raises(http_client.NoResponse, match="came before its request"):
            ear.rig.client.exchange("GET", url, headers={}, read_s=20)
        ear.rig.client.drop()


@contextmanager
def served(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on loopback where each connection is talked to, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("content", [None, b"", b"x" * 100, [b"x" * 65_536] * 8])
def test_a_kept_connection_that_closes_under_a_request(
    ear: Ear, content: bytes | list[bytes] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that closes what was idle in the very instant of the next request: it is sent again, in silence."""
    answered: list[int] = []
    close, closed = threading.Event(), threading.Event()

    def talk(connection: socket.socket) -> None:
        answered.append(len(connection.recv(1 << 20)))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if len(answered) == 1:
            assert close.wait(5)
            connection.close()
            closed.set()

    hear = exchange_monitor.ExchangeMonitor.trace

    def heard(self: exchange_monitor.ExchangeMonitor, name: str, info: dict[str, object]) -> None:
        hear(self, name, info)
        if name.endswith("send_request_headers.started") and len(answered) == 1 and not close.is_set():
            close.set()  # after httpx has looked at the connection, before anything is sent
            assert closed.wait(5)

    monkeypatch.setattr(exchange_monitor.ExchangeMonitor, "trace", heard)
    with served(talk) as port:
        url = f"http://127.0.0.1:{port}/"
        assert ear.rig.client.exchange("GET", url, headers={}, read_s=5).status == 200
        method = "GET" if content is None else "PUT"
        headers = {"Content-Length": str(sum(map(len, content)))} if isinstance(content, list) else {}
        assert ear.rig.client.exchange(method, url, headers=headers, read_s=5, content=content).status == 200
        ear.rig.client.drop()
    assert close.is_set()
    assert len(answered) == 2


@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), ValueError("a defect"), BrokenPipeError()])
def test_what_the_body_raises_is_no_cut_upload(ear: Ear, raised: Exception) -> None:
    """A disk that is full while progress is told is told as what it is, and is not tried again and again."""

    def fail(_sent: int, _total: int) -> None:
        if _sent:
            raise raised

    witness = Witness(ear.rig.clock)
    witness.sent = fail  # type: ignore[method-assign]
    with pytest.raises(type(raised)) as caught:
        ear.rig.sync(witness=witness)
    assert caught.value is raised
    assert witness.failures == []
    assert ear.rig.asked().count("initialize") == 0
    assert ear.rig.emulator.request_log.wait(
        "upload"
    )  # what was sent is put down, or it is not, before anything else comes
    ear.converge()


@pytest.mark.parametrize("size_bytes", [1_500_000, 12 << 20])
def test_what_was_given_up_does_not_arrive_later(ear: Ear, monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    """An upload that nobody answered ends where it was: its rest is not sent behind our back, over a newer one."""
    monkeypatch.setattr(http_client, "WRITE_S", 0.5)
    given_up, counted = threading.Event(), threading.Event()
    got: list[int] = []

    def talk(connection: socket.socket) -> None:
        assert given_up.wait(20)
        with suppress(OSError):
            while piece := connection.recv(1 << 20):
                got.append(len(piece))
        counted.set()

    blocks = [bytes(65_536)] * (size_bytes // 65_536)
    headers = {"Content-Length": str(65_536 * len(blocks))}
    with served(talk) as port:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(http_client.NoResponse):
            ear.rig.client.exchange("PUT", url, headers=headers, read_s=0.5, content=blocks)
        given_up.set()
        assert counted.wait(20)
    assert sum(got) < 65_536 * len(blocks)


def test_no_cookie_is_kept(ear: Ear) -> None:
    """Nothing that an answer leaves behind goes into the next request."""
    asked: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        for _ in range(2):
            asked.append(connection.recv(65_536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n")

    with served(talk) as port:
        for _ in range(2):
            ear.rig.client.exchange("GET", f"http://127.0.0.1:{port}/", headers={}, read_s=5)
        ear.rig.client.drop()
    assert len(asked) == 2
    assert b"cookie" not in asked[1].lower()


# -- the way there


Make = Callable[..., tuple[str, str]]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a certificate for a name: the files of it and of its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate")

    def make(name: str, *more: str) -> tuple[str, str]:
        folder = tmp_path_factory.mktemp("certificate")
        key, certificate = str(folder / "key"), str(folder / "certificate")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-subj", "/CN=x", "-addext", f"subjectAltName={name}", "-keyout", key, "-out", certificate, *more]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip(f"this openssl knows no {more[0] if more else 'such certificate'}")
        return certificate, key

    return make


OVER = ("-not_before", "20200101000000Z", "-not_after", "20200201000000Z")
AHEAD_OF_US = ("-not_before", "20900101000000Z", "-not_after", "20910101000000Z")


@pytest.mark.parametrize("op", ["upload-url", "upload"])
@pytest.mark.parametrize(
    ("name", "more", "reusable", "says"),
    [
        ("DNS:localhost", (), False, "not trusted here (set SSL_CERT_FILE"),
        ("DNS:elsewhere.example", (), True, "certificate is for another host"),
        ("DNS:localhost", OVER, True, "has expired (or is this machine's clock ahead?)"),
        ("DNS:localhost", AHEAD_OF_US, True, "not valid yet (is this machine's clock behind?)"),
    ],
)
def test_certificates(
    ear: Ear,
    certificates: Make,
    monkeypatch: pytest.MonkeyPatch,
    op: str,
    name: str,
    more: tuple[str, ...],
    reusable: bool,
    says: str,
) -> None:
    """A server that cannot prove who it is gets neither key nor archive, and a person reads what to do about it."""
    certificate, key = certificates(name, *more)
    if reusable:
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    got: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            got.append(wrapped.recv(65_536))

    with served(talk) as port:
        cannot_get_there(ear, op, f"https://localhost:{port}", says)
    assert got in ([], [b""] * len(got))


def silent(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.recv(65_536)


def plain(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def rude(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("op", ["upload-url", "upload"])
@pytest.mark.parametrize(
    ("talk", "says"),
    [(silent, "cannot be reached (no connection within"), (plain, "no TLS is spoken on that port"), (rude, "reset")],
)
def test_what_is_no_tls(
    ear: Ear, monkeypatch: pytest.MonkeyPatch, op: str, talk: Callable[[socket.socket], None], says: str
) -> None:
    """A port that speaks something else, or nothing, behind an https address."""
    monkeypatch.setattr(http_client, "CONNECT_S", 0.2)
    ear.rig.keys["retry"]["give_up_after_seconds"] = 3
    with served(talk) as port:
        cannot_get_there(ear, op, f"https://localhost:{port}", says)


@pytest.mark.parametrize("op", ["upload-url", "upload"])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://no-such-host.invalid", "cannot be reached (its name"),
        ("https://127.0.0.1:9", "cannot be reached (Connection refused)"),
        ("http://localhost:9", "cannot be reached (Connection refused)"),
        ("https://[::1]:9", "cannot be reached ("),
    ],
)
def test_nobody_there(ear: Ear, op: str, url: str, says: str) -> None:
    """A name that is not known, a port that is closed, an address that leads nowhere."""
    cannot_get_there(ear, op, url, says)


def cannot_get_there(ear: Ear, op: str, url: str, says: str) -> None:
    """A sync whose API or bucket is at this address, and one where it is in its place again."""
    good = ear.rig.emulator.base_url
    if op == "upload-url":
        ear.rig.keys["sandbox"]["base_url"] = url
    else:
        answer = json.dumps({"upload_url": f"{url}/o?X-Goog-Signature=5ECRET", "expires_in_minutes": 30})
        ear.rig.emulator.faults.script(f"upload-url: json {answer} always")
    failure = ear.fail()
    assert (failure.step, failure.action, failure.as_error().exit_code) == (ApiStep(op), OFFLINE, 75)
    assert says in str(failure)
    assert "5ECRET" not in str(failure)
    assert ear.rig.asked().count("upload") == 0
    ear.rig.restart()
    ear.rig.keys["sandbox"]["base_url"] = good
    if op == "upload":
        ear.rig.clock.go_on(1800)  # the URL that led nowhere is over
    ear.converge()


def test_localhost_by_its_other_address(ear: Ear) -> None:
    """Where a name has two addresses and nobody is at the first, the second is tried; that is no failure."""
    if not any(found[0] == socket.AF_INET6 for found in socket.getaddrinfo("localhost", 9)):
        pytest.skip("localhost has one address here")
    ear.rig.keys["sandbox"]["base_url"] = ear.rig.emulator.base_url.replace("127.0.0.1", "localhost")
    assert ear.sync().failures == []
