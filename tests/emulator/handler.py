"""Handles each request with its hooks and its fault: before, in the middle of, instead of and after the work."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from http import HTTPStatus
from itertools import chain, repeat
from typing import TYPE_CHECKING

from msgspec import structs

from syncd.emulator.api import json_reply
from syncd.emulator.bucket import error_reply
from syncd.emulator.server import (
    CHUNK_BYTES,
    Disconnected,
    Handler,
    LoopbackServer,
    Reply,
    Request,
    RequestBody,
    Service,
)
from tests.emulator.faults import ENDS_CONNECTION, REPLACES_ANSWER, UNFRAMED, Action, Fault, When
from tests.emulator.hostile_bodies import bomb, flood, unescaped
from tests.emulator.request_log import RequestRecord
from tests.emulator.sandbox import CURRENT

if TYPE_CHECKING:
    from tests.emulator.emulator import Emulator

_PAGE = b"<!doctype html><html><head><title>Welcome</title></head><body>Please accept the terms of use.</body></html>"
_JSON = ("Content-Type", "application/json")
_TICK_S = 0.05
# The window of the rate limit, which clients are told to wait for.
_RATE_WINDOW_S = 1
# If the client sends faster than this reads, more than a segment is unread, which the kernel acknowledges anyway.
_RESET_READS = 100
# These answers have no body, whatever their head says (RFC 9112, 6.3).
_BODILESS = frozenset({204, 304})
_CODES = {
    400: "InvalidArgument",
    401: "AuthenticationRequired",
    403: "AccessDenied",
    404: "NoSuchKey",
    408: "RequestTimeout",
    411: "MissingContentLength",
    429: "SlowDown",
    500: "InternalError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


class _AnsweredByFault(Disconnected):
    """The work ends here, and the fault's answer is sent instead of its own."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class _FaultyBody:
    """A request's body that is read slowly, changed, or interrupted in its middle."""

    def __init__(self, body: RequestBody, handler: FaultyHandler) -> None:
        self._body = body
        self._handler = handler
        self.length = body.length

    @property
    def received(self) -> int:
        return self._body.received

    def read(self, limit: int = CHUNK_BYTES) -> bytes:
        handler, half = self._handler, max(1, self.length // 2)
        if self.received < half:
            limit = min(limit, half - self.received)
        slow = handler.fault_of(Action.SLOW)
        if slow is not None:
            limit = min(limit, max(1, int(slow.amount * _TICK_S)))
        data = self._body.read(limit)
        if slow is not None:
            handler.wait(len(data) / slow.amount)
        handler.record.bytes_in = self.received
        if data and self.received - len(data) < half <= self.received:
            if handler.fault_of(Action.CORRUPT):
                data = data[:-1] + bytes([data[-1] ^ 0x55])
            handler.act(When.MID_BODY)
        return data


class FaultyHandler(Handler):
    """One connection, with the hooks and the fault of each of its requests."""

    server: FaultyServer
    record: RequestRecord | None = None  # of a request that the service answers
    fault: Fault | None = None
    request_bytes: int = 0
    answer_bytes: int

    def fault_of(self, *actions: Action) -> Fault | None:
        """The request's fault, if it is one of these."""
        return self.fault if self.fault is not None and self.fault.action in actions else None

    def exchange(self, request: Request, record: RequestRecord) -> None:
        self.record, self.request_bytes = record, request.body.length
        self.fault = self.server.emulator.faults.take(record.op, record.sandbox)
        record.fault = str(self.fault) if self.fault else None
        try:
            self.act(When.BEFORE)
            reply = self._changed(self._answer(structs.replace(request, body=_FaultyBody(request.body, self))))
            self.act(When.AFTER)
        except _AnsweredByFault as answered:
            reply = answered.reply
        except Disconnected:
            raise
        except Exception as error:
            self.server.failed(error)
            reply = Reply(500)
        record.status = reply.status
        self.send(request, reply)
        self.record = self.fault = None

    def act(self, when: When) -> None:
        """Run the hooks and the fault of this moment. Raises Disconnected if the fault says so."""
        for hook in self.server.emulator.faults.hooks(self.record.op, when):
            hook(self.record)
        fault = self.fault
        if fault is None or fault.moment is not when:
            return
        if fault.action is Action.RESET:
            self._reset()
        if fault.action in (Action.HANG, Action.DELAY):
            self.wait(fault.amount)
        if fault.action in ENDS_CONNECTION:
            raise Disconnected
        if fault.action is Action.GONE and self.record.sandbox is not None:
            self.server.emulator.api.delete_sandbox(self.record.sandbox)
        if fault.action in REPLACES_ANSWER:
            raise _AnsweredByFault(self._fault_reply(fault))

    def wait(self, seconds: float) -> None:
        """Wait for `seconds`. Raises Disconnected as soon as the client or the server closes the connection."""
        poll = select.poll()
        try:
            # RDHUP, not IN, which would return at once while a body is unread.
            poll.register(self.connection, select.POLLRDHUP)
            closed = poll.poll(max(0.0, seconds) * 1000)
        except (OSError, ValueError) as error:
            raise Disconnected from error
        if closed:
            raise Disconnected

    # The answer

    def _answer(self, request: Request) -> Reply:
        emulator, record = self.server.emulator, self.record
        if self.fault is not None and self.fault.action in REPLACES_ANSWER and self.fault.moment is When.INSTEAD:
            while request.body.read():
                pass
            return self._fault_reply(self.fault)
        if record.sandbox is not None:
            emulator.sandbox(record.sandbox)  # starts what is due
        if (refused := self.server.limited(request)) is not None:
            return refused
        CURRENT.changes = emulator.faults.take_changes(record.op, record.sandbox)
        record.fault = ", ".join(filter(None, (record.fault, *map(str, CURRENT.changes.values())))) or None
        return self.work(request, record)

    def _changed(self, reply: Reply) -> Reply:
        if self.fault_of(Action.WRONG_HASH, Action.NO_HASH, Action.TWO_HASHES):
            wrong = (("x-goog-hash", "crc32c=AAAAAA=="), ("x-goog-hash", "md5=1B2M2Y8AsgTpgAmY7PhCfg=="))
            both = self.fault_of(Action.TWO_HASHES)
            kept = tuple(pair for pair in reply.headers if pair[0] != "x-goog-hash" or both)
            reply = structs.replace(reply, headers=kept + (() if self.fault_of(Action.NO_HASH) else wrong))
        if self.fault_of(Action.CUT):
            with reply.file or nullcontext():
                whole = b"".join(reply.chunks())
            reply = structs.replace(reply, body=whole[: len(whole) // 2], file=None)
        return reply

    def _fault_reply(self, fault: Fault) -> Reply:
        if fault.action is Action.HTML:
            return Reply(200, (("Content-Type", "text/html; charset=utf-8"),), _PAGE)
        if fault.action is Action.JSON:
            return Reply(200, (_JSON,), fault.text.encode())
        if fault.action is Action.ERROR:
            answer = {"sandbox_id": self.record.sandbox or "", "status": "error", "message": fault.text}
            return Reply(200, (_JSON,), json.dumps(answer).encode())
        if fault.action is Action.BOMB:
            return Reply(200, (_JSON, ("Content-Encoding", "gzip, gzip")), bomb())
        if fault.action in UNFRAMED:
            return Reply(200, (_JSON,))
        reply = self.server.error_reply(fault.status, fault.options.get("code", ""))
        extra = (("Retry-After", "retry-after"), ("Location", "location"))
        headers = (*reply.headers, *((name, fault.options[key]) for name, key in extra if key in fault.options))
        return structs.replace(reply, headers=headers, body=b"" if fault.status in _BODILESS else reply.body)

    # Its way to the client

    def send(self, request: Request, reply: Reply) -> None:
        self.answer_bytes = reply.size_bytes
        fault = self.fault_of(*UNFRAMED)
        if fault is None:
            super().send(request, reply)
            return
        self.close_connection = True
        if fault.action is Action.RAW:
            self.write(unescaped(fault.text))
            self.drain()
            return
        opening = self.head(200, [("Date", self.date_time_string()), _JSON, ("Connection", "close")])
        endless = chain([opening + b'{"x": "'], repeat(b"x" * CHUNK_BYTES))
        for piece in flood(fault.text) if fault.action is Action.FLOOD else endless:
            self.write(piece)

    def transmit(self, opening: bytes, pieces: Iterable[bytes]) -> None:
        if self.record is None:
            super().transmit(opening, pieces)
            return
        pieces = self._pieces(pieces)
        if (drip := self.fault_of(Action.DRIP)) is not None:
            for byte in opening + b"".join(pieces):
                self.wait(drip.amount)
                self.write(bytes([byte]))
        else:
            super().transmit(opening, pieces)

    def _pieces(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        half, sent = max(1, self.answer_bytes // 2), 0
        slow = self.fault_of(Action.SLOW)
        for chunk in chunks:
            rest = chunk
            while rest:
                step = half - sent if sent < half < sent + len(rest) else len(rest)
                if slow is not None:
                    step = min(step, max(1, int(slow.amount * _TICK_S)))
                    self.wait(step / slow.amount)
                piece, rest = rest[:step], rest[step:]
                if self.fault_of(Action.CORRUPT) and not self.request_bytes and sent <= half < sent + len(piece):
                    position = half - sent
                    piece = piece[:position] + bytes([piece[position] ^ 0x55]) + piece[position + 1 :]
                sent += len(piece)
                yield piece
                if not self.request_bytes and sent - len(piece) < half <= sent:
                    # Half an answer is sent: it cannot be replaced, only the connection can end.
                    self.act(When.MID_BODY)

    def date_time_string(self, timestamp: float | None = None) -> str:
        skew = self.fault_of(Action.SKEW)
        return super().date_time_string(self.server.clock.wall_s() + skew.amount if skew is not None else timestamp)

    def _reset(self) -> None:
        """End the connection with a TCP reset, after all received bytes have been acknowledged.

        Without that, it would depend on timing if the client knows that its request has arrived.
        """
        connection = self.connection
        connection.settimeout(0)
        with suppress(OSError):  # also if nothing is left to read, which ends the loop
            # While bytes are unread, Linux does not acknowledge at once (tcp_cleanup_rbuf in net/ipv4/tcp.c).
            for _ in range(_RESET_READS):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                if not connection.recv(CHUNK_BYTES):
                    break
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


class FaultyServer(LoopbackServer):
    """A server with the faults and limits of its emulator."""

    handler = FaultyHandler

    def __init__(self, service: Service, port: int, emulator: Emulator) -> None:
        super().__init__(service, port, emulator.clock, emulator.observer)
        self.emulator = emulator
        self._lock = threading.Lock()
        self._answered_s: deque[float] = deque()

    def begin(self, request: Request) -> RequestRecord:
        record = RequestRecord(**structs.asdict(super().begin(request)))
        self.emulator.request_log.begin(record)
        return record

    def finish(self, record: RequestRecord) -> None:
        self.emulator.request_log.finish(record)
        super().finish(record)

    def failed(self, error: BaseException) -> None:
        self.emulator.failures.append(error)
        super().failed(error)

    def error_reply(self, status: int, code: str = "") -> Reply:
        """An error in this service's format; without `code`, with the usual one of the status."""
        if self.service is self.emulator.bucket:
            return error_reply(status, code or _CODES.get(status, "UnknownError"))
        known = status in {known.value for known in HTTPStatus}
        return json_reply(status, {"detail": code or (HTTPStatus(status).phrase if known else f"Status {status}")})

    def limited(self, request: Request) -> Reply | None:
        """The answer to a request above the emulator's limits, None for all others."""
        now_s = self.clock.monotonic_s()
        if self.service is self.emulator.api:
            limit = self.emulator.rate_limit
            if not limit or request.header("Authorization") != f"Bearer {self.emulator.api_key}":
                return None
            with self._lock:
                while self._answered_s and self._answered_s[0] <= now_s - _RATE_WINDOW_S:
                    self._answered_s.popleft()
                if len(self._answered_s) < limit:
                    self._answered_s.append(now_s)
                    return None
            detail = f"Rate limit exceeded: {limit} per {_RATE_WINDOW_S} second"
            return json_reply(429, {"detail": detail}, (("Retry-After", str(_RATE_WINDOW_S)),))
        return None
