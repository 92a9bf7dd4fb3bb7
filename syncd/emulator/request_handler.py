"""Handles each request: request log, fault, work, answer. It carries out all faults but those that change the work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.utils import formatdate
from itertools import chain, repeat
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.clock import Clock
from syncd.emulator.faults import ENDS_CONNECTION, REPLACES_ANSWER, UNFRAMED, Action, Changes, Fault, Faults, When
from syncd.emulator.hostile_bodies import bomb, flood, unescaped
from syncd.emulator.request_log import RequestLog, RequestRecord, redacted
from syncd.emulator.wire import CHUNK_BYTES, DRAIN_BYTES, Connection, Disconnected, Readable, Reply, Request, head

_PAGE = b"<!doctype html><html><head><title>Welcome</title></head><body>Please accept the terms of use.</body></html>"
_TICK_S = 0.05
# These answers have no body, whatever their head says (RFC 9112, 6.3).
_BODILESS = frozenset({204, 304})


class EmulatedService(Protocol):
    """The service of an origin: the API, or the bucket."""

    def identify(self, request: Request) -> tuple[str, str | None]:
        """The request's operation and its sandbox."""
        ...

    def answer(self, op: str, request: Request, body: Readable, changes: Changes) -> Reply:
        """Do the work, as changed. Raises Disconnected, with nothing done, if the client ends before its body does."""
        ...

    def error_reply(self, status: int, code: str) -> Reply:
        """An error in this service's format; `code` may be empty."""
        ...

    def delete_sandbox(self, sandbox: str) -> None:
        """Delete the sandbox."""
        ...


class _AnsweredByFault(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class _Exchange(Struct):
    """One request and its fault, if it has one."""

    service: EmulatedService
    connection: Connection
    request: Request
    entry: RequestRecord
    faults: Faults
    fault: Fault | None

    def has_fault(self, *actions: Action) -> bool:
        return self.fault is not None and self.fault.action in actions

    def act(self, when: When) -> None:
        """Run the hooks and the fault of this moment. Raises _AnsweredByFault or Disconnected if the fault says so."""
        for hook in self.faults.hooks(self.entry.op, when):
            hook(self.entry)
        fault = self.fault
        if fault is None or fault.moment is not when:
            return
        if fault.action is Action.RESET:
            self.connection.reset()
            raise Disconnected
        if fault.action in (Action.HANG, Action.DELAY):
            self.connection.wait(fault.amount)
        if fault.action in ENDS_CONNECTION:
            raise Disconnected
        if fault.action is Action.GONE and self.entry.sandbox is not None:
            self.service.delete_sandbox(self.entry.sandbox)
        if fault.action in REPLACES_ANSWER:
            raise _AnsweredByFault(self.fault_reply(fault))

    def fault_reply(self, fault: Fault) -> Reply:
        """The fault's answer, instead of the service's."""
        kind = ("Content-Type", "application/json")
        if fault.action is Action.HTML:
            return Reply(200, (("Content-Type", "text/html; charset=utf-8"),), _PAGE)
        if fault.action is Action.JSON:
            return Reply(200, (kind,), fault.text.encode())
        if fault.action is Action.ERROR:
            answer = {"sandbox_id": self.entry.sandbox or "", "status": "error", "message": fault.text}
            return Reply(200, (kind,), json.dumps(answer).encode())
        if fault.action is Action.REDIRECT:
            return Reply(307, (("Location", fault.text),))
        if fault.action is Action.BOMB:
            return Reply(200, (kind, ("Content-Encoding", "gzip, gzip")), bomb())
        if fault.action in UNFRAMED:
            return Reply(200, (kind,))
        reply = self.service.error_reply(fault.status, fault.code)
        if fault.status in _BODILESS:
            reply = replace(reply, body=b"")
        extra = (("Retry-After", fault.retry_after), ("Location", fault.text))
        return replace(reply, headers=(*reply.headers, *(pair for pair in extra if pair[1])))

    # The request's body, which the service reads

    @property
    def length(self) -> int:
        return self.request.body.length

    def read(self, limit: int = CHUNK_BYTES) -> bytes:
        body = self.request.body
        half = max(1, self.length // 2)
        if body.received < half:
            limit = min(limit, half - body.received)
        data = self._read_slowly(lambda size: body.read(min(size, limit)), limit)
        self.entry.bytes_in = body.received
        if data and body.received - len(data) < half <= body.received:
            if self.has_fault(Action.CORRUPT):
                data = data[:-1] + bytes([data[-1] ^ 0x55])
            self.act(When.MID_BODY)
        return data

    def _read_slowly(self, read: Callable[[int], bytes], limit: int) -> bytes:
        if self.fault is None or self.fault.action is not Action.SLOW:
            return read(limit)
        piece = max(1, int(self.fault.amount * _TICK_S))
        data = read(min(piece, limit))
        self.connection.wait(len(data) / self.fault.amount)
        return data

    def answer(self) -> Reply:
        """The service's answer, changed by the faults that act on it."""
        if self.fault is not None and self.fault.action in REPLACES_ANSWER and self.fault.moment is When.INSTEAD:
            while self.read():
                pass
            return self.fault_reply(self.fault)
        changes = self.faults.take_changes(self.entry.op)
        self.entry.fault = ", ".join(filter(None, (self.entry.fault, *map(str, changes.values())))) or None
        reply = self.service.answer(self.entry.op, self.request, self, changes)
        if self.has_fault(Action.WRONG_HASH, Action.NO_HASH, Action.TWO_HASHES):
            wrong = (("x-goog-hash", "crc32c=AAAAAA=="), ("x-goog-hash", "md5=1B2M2Y8AsgTpgAmY7PhCfg=="))
            kept = tuple(
                pair for pair in reply.headers if pair[0] != "x-goog-hash" or self.has_fault(Action.TWO_HASHES)
            )
            reply = replace(reply, headers=kept + (() if self.has_fault(Action.NO_HASH) else wrong))
        if self.has_fault(Action.CUT):
            reply = replace(reply, body=reply.body[: len(reply.body) // 2], content_bytes=reply.content_bytes // 2)
        return reply

    # The answer's body, which the client reads

    def pieces(self, reply: Reply) -> Iterator[bytes]:
        half, sent = max(1, reply.size_bytes // 2), 0
        for chunk in reply.chunks():
            rest = chunk
            while rest:
                step = half - sent if sent < half < sent + len(rest) else len(rest)
                if self.has_fault(Action.SLOW) and self.fault is not None:
                    step = min(step, max(1, int(self.fault.amount * _TICK_S)))
                    self.connection.wait(step / self.fault.amount)
                piece, rest = rest[:step], rest[step:]
                if self.has_fault(Action.CORRUPT) and not self.length and sent <= half < sent + len(piece):
                    position = half - sent
                    piece = piece[:position] + bytes([piece[position] ^ 0x55]) + piece[position + 1 :]
                sent += len(piece)
                yield piece
                if not self.length and sent - len(piece) < half <= sent:
                    self._mid_answer()

    def _mid_answer(self) -> None:
        try:
            self.act(When.MID_BODY)
        except _AnsweredByFault as answered:
            # Half an answer is sent: it cannot be replaced, only the connection can end.
            raise Disconnected from answered


class RequestHandler:
    """Handles the requests of every origin, with its service.

    `on_error` gets each unexpected error of a service or a hook; the client gets 500.
    """

    def __init__(
        self, clock: Clock, request_log: RequestLog, faults: Faults, on_error: Callable[[BaseException], None]
    ) -> None:
        self._clock = clock
        self._request_log = request_log
        self._faults = faults
        self._on_error = on_error

    def serve(self, service: EmulatedService, connection: Connection, request: Request) -> bool:
        """Answer the request. True if the connection may carry another one. Raises Disconnected."""
        op, sandbox = service.identify(request)
        entry = RequestRecord(self._clock.wall_s(), op, request.method, redacted(request), sandbox)
        fault = self._faults.take(op)
        entry.fault = str(fault) if fault else None
        exchange = _Exchange(service, connection, request, entry, self._faults, fault)
        began_s = self._clock.monotonic_s()
        self._request_log.begin(entry)
        try:
            return self._answer(exchange)
        finally:
            entry.seconds = self._clock.monotonic_s() - began_s
            self._request_log.finish(entry)

    def _answer(self, exchange: _Exchange) -> bool:
        with ExitStack() as opened:
            try:
                exchange.act(When.BEFORE)
                reply = exchange.answer()
                if reply.content is not None:
                    opened.enter_context(reply.content)
                exchange.act(When.AFTER)
            except _AnsweredByFault as answered:
                reply = answered.reply
            except Disconnected:
                raise
            except Exception as error:  # noqa: BLE001 - a bug here must look like a server's, and is raised at the end
                self._on_error(error)
                reply = exchange.service.error_reply(500, "")
            return self._send(exchange, reply)

    def _send(self, exchange: _Exchange, reply: Reply) -> bool:
        body, connection = exchange.request.body, exchange.connection
        if 0 < body.unread <= DRAIN_BYTES and not body.awaits_continue:
            while body.read():
                pass
        unframed = exchange.has_fault(*UNFRAMED)
        keeps = exchange.request.keeps_alive and not body.unread and not exchange.request.chunked and not unframed
        dated_s = self._clock.wall_s() + (
            exchange.fault.amount if exchange.fault and exchange.has_fault(Action.SKEW) else 0.0
        )
        headers = [("Date", formatdate(dated_s, usegmt=True)), *reply.headers]
        if not unframed:
            headers.append(("Content-Length", str(reply.size_bytes)))
        if not keeps:
            headers.append(("Connection", "close"))
        opening = head(reply.status, headers)
        exchange.entry.status = reply.status
        if unframed and exchange.fault is not None:
            self._send_unframed(connection, exchange.fault, opening)
            return False
        bodiless = exchange.request.method == "HEAD"
        whole = b""
        for piece in () if bodiless else exchange.pieces(reply):
            if exchange.has_fault(Action.TWICE, Action.DRIP):
                whole += piece
                continue
            connection.send(opening + piece)
            opening = b""
        if exchange.has_fault(Action.DRIP) and exchange.fault is not None:
            for byte in opening + whole:
                connection.wait(exchange.fault.amount)
                connection.send(bytes([byte]))
        else:
            connection.send((opening + whole) * (2 if exchange.has_fault(Action.TWICE) else 1))
        if not keeps:
            connection.drain()
        return keeps

    def _send_unframed(self, connection: Connection, fault: Fault, opening: bytes) -> None:
        if fault.action is Action.RAW:
            connection.send(unescaped(fault.text))
            connection.drain()
            return
        endless = chain([opening + b'{"x": "'], repeat(b"x" * CHUNK_BYTES))
        for piece in flood(fault.text) if fault.action is Action.FLOOD else endless:
            connection.send(piece)
