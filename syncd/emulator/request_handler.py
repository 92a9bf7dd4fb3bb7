"""One request's way through the emulator: journal, fault, work, answer. The only place where faults are played."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from email.utils import formatdate
from itertools import chain, repeat
from typing import Protocol

from syncd.core.clock import Clock
from syncd.emulator.bad_responses import bomb, flood, unescaped
from syncd.emulator.faults import ANSWERS, BREAKS, WILD, Action, Fault, Faults, When
from syncd.emulator.request_log import RequestLog, RequestRecord, redacted
from syncd.emulator.wire import CHUNK_BYTES, DRAIN_BYTES, Connection, Disconnected, Readable, Reply, Request, head

_PAGE = b"<!doctype html><html><head><title>Welcome</title></head><body>Please accept the terms of use.</body></html>"
_TICK_S = 0.05
# Answers that end with their head, whatever it says (RFC 9112, 6.3).
_BODILESS = frozenset({204, 304})


class EmulatedService(Protocol):
    """What stands behind an origin: the API, or the bucket."""

    def identify(self, request: Request) -> tuple[str, str | None]:
        """The request's operation, and the sandbox that it is about."""
        ...

    def answer(self, op: str, request: Request, body: Readable) -> Reply:
        """Does the work. Disconnected if the client ends before its body does: then nothing was done."""
        ...

    def refusal(self, status: int, code: str) -> Reply:
        """An error in this service's shape; `code` may be empty."""
        ...

    def vanish(self, sandbox: str) -> None:
        """The sandbox is gone from now on."""
        ...

    def empty(self, sandbox: str) -> None:
        """The sandbox's workspace holds nothing."""
        ...


class _Answered(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


@dataclass
class _Play:
    """One request and the fault that it meets, if any."""

    service: EmulatedService
    connection: Connection
    request: Request
    entry: RequestRecord
    faults: Faults
    fault: Fault | None

    def has(self, *actions: Action) -> bool:
        return self.fault is not None and self.fault.action in actions

    def at(self, when: When) -> None:
        """Lets the hooks and the fault of this instant act: nothing, a pause, _Answered or Disconnected."""
        for hook in self.faults.hooks(self.entry.op, when):
            hook(self.entry)
        fault = self.fault
        if fault is None or fault.instant is not when:
            return
        if fault.action is Action.RESET:
            self.connection.reset()
            raise Disconnected
        if fault.action in (Action.HANG, Action.DELAY):
            self.connection.wait(fault.amount)
        if fault.action in BREAKS:
            raise Disconnected
        if fault.action is Action.GONE and self.entry.sandbox is not None:
            self.service.vanish(self.entry.sandbox)
        if fault.action is Action.REPLACE and self.entry.sandbox is not None:
            self.service.empty(self.entry.sandbox)
        if fault.action in ANSWERS:
            raise _Answered(self.reply(fault))

    def reply(self, fault: Fault) -> Reply:
        """The answer that the fault gives in place of the genuine one."""
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
        if fault.action in WILD:
            return Reply(200, (kind,))
        reply = self.service.refusal(fault.status, fault.code)
        if fault.status in _BODILESS:
            reply = replace(reply, body=b"")
        extra = (("Retry-After", fault.retry_after), ("Location", fault.text))
        return replace(reply, headers=(*reply.headers, *(pair for pair in extra if pair[1])))

    # The request's body, as the service reads it.

    @property
    def length(self) -> int:
        return self.request.body.length

    def read(self, limit: int = CHUNK_BYTES) -> bytes:
        body = self.request.body
        half = max(1, self.length // 2)
        if body.received < half:
            limit = min(limit, half - body.received)
        data = self._slowly(lambda size: body.read(min(size, limit)), limit)
        self.entry.bytes_in = body.received
        if data and body.received - len(data) < half <= body.received:
            if self.has(Action.CORRUPT):
                data = data[:-1] + bytes([data[-1] ^ 0x55])
            self.at(When.MID_BODY)
        return data

    def _slowly(self, read: Callable[[int], bytes], limit: int) -> bytes:
        if self.fault is None or self.fault.action is not Action.SLOW:
            return read(limit)
        piece = max(1, int(self.fault.amount * _TICK_S))
        data = read(min(piece, limit))
        self.connection.wait(len(data) / self.fault.amount)
        return data

    def genuine(self) -> Reply:
        """The service's answer, with the faults that act while it works or on what it says."""
        if self.fault is not None and self.fault.action in ANSWERS and self.fault.instant is When.INSTEAD:
            while self.read():
                pass
            return self.reply(self.fault)
        reply = self.service.answer(self.entry.op, self.request, self)
        if self.has(Action.WRONG_HASH, Action.NO_HASH, Action.TWO_HASHES):
            lies = (("x-goog-hash", "crc32c=AAAAAA=="), ("x-goog-hash", "md5=1B2M2Y8AsgTpgAmY7PhCfg=="))
            kept = tuple(pair for pair in reply.headers if pair[0] != "x-goog-hash" or self.has(Action.TWO_HASHES))
            reply = replace(reply, headers=kept + (() if self.has(Action.NO_HASH) else lies))
        if self.has(Action.CUT):
            reply = replace(reply, body=reply.body[: len(reply.body) // 2], content_bytes=reply.content_bytes // 2)
        return reply

    # The answer's body, as the client reads it.

    def pieces(self, reply: Reply) -> Iterator[bytes]:
        half, sent = max(1, reply.size_bytes // 2), 0
        for chunk in reply.chunks():
            rest = chunk
            while rest:
                step = half - sent if sent < half < sent + len(rest) else len(rest)
                if self.has(Action.SLOW) and self.fault is not None:
                    step = min(step, max(1, int(self.fault.amount * _TICK_S)))
                    self.connection.wait(step / self.fault.amount)
                piece, rest = rest[:step], rest[step:]
                if self.has(Action.CORRUPT) and not self.length and sent <= half < sent + len(piece):
                    spot = half - sent
                    piece = piece[:spot] + bytes([piece[spot] ^ 0x55]) + piece[spot + 1 :]
                sent += len(piece)
                yield piece
                if not self.length and sent - len(piece) < half <= sent:
                    self._mid_answer()

    def _mid_answer(self) -> None:
        try:
            self.at(When.MID_BODY)
        except _Answered as answered:
            # Half an answer is out: another can no longer be given, only the connection ended.
            raise Disconnected from answered


class Exchanges:
    """What every origin does with a request, whatever service stands behind it.

    `failed` is told what a service or a hook raised unexpectedly; the client is told 500.
    """

    def __init__(
        self, clock: Clock, request_log: RequestLog, faults: Faults, failed: Callable[[BaseException], None]
    ) -> None:
        self._clock = clock
        self._request_log = request_log
        self._faults = faults
        self._failed = failed

    def serve(self, service: EmulatedService, connection: Connection, request: Request) -> bool:
        """Answers; whether the connection may carry another request. Disconnected if it ended."""
        op, sandbox = service.identify(request)
        entry = RequestRecord(self._clock.wall_s(), op, request.method, redacted(request), sandbox)
        fault = self._faults.take(op)
        entry.fault = str(fault) if fault else None
        play = _Play(service, connection, request, entry, self._faults, fault)
        began_s = self._clock.monotonic_s()
        self._request_log.begin(entry)
        try:
            return self._answered(play)
        finally:
            entry.seconds = self._clock.monotonic_s() - began_s
            self._request_log.finish(entry)

    def _answered(self, play: _Play) -> bool:
        with ExitStack() as opened:
            try:
                play.at(When.BEFORE)
                reply = play.genuine()
                if reply.content is not None:
                    opened.enter_context(reply.content)
                play.at(When.AFTER)
            except _Answered as answered:
                reply = answered.reply
            except Disconnected:
                raise
            except Exception as error:  # noqa: BLE001 - a bug here must look like a server's, and be found
                self._failed(error)
                reply = play.service.refusal(500, "")
            return self._send(play, reply)

    def _send(self, play: _Play, reply: Reply) -> bool:
        body, connection = play.request.body, play.connection
        if 0 < body.unread <= DRAIN_BYTES and not body.awaits_continue:
            while body.read():
                pass
        wild = play.has(*WILD)
        keeps = play.request.keeps_alive and not body.unread and not play.request.chunked and not wild
        dated_s = self._clock.wall_s() + (play.fault.amount if play.fault and play.has(Action.SKEW) else 0.0)
        headers = [("Date", formatdate(dated_s, usegmt=True)), *reply.headers]
        if not wild:
            headers.append(("Content-Length", str(reply.size_bytes)))
        if not keeps:
            headers.append(("Connection", "close"))
        opening = head(reply.status, headers)
        play.entry.status = reply.status
        if wild and play.fault is not None:
            self._send_wildly(connection, play.fault, opening)
            return False
        bodiless = play.request.method == "HEAD"
        whole = b""
        for piece in () if bodiless else play.pieces(reply):
            if play.has(Action.TWICE, Action.DRIP):
                whole += piece
                continue
            connection.send(opening + piece)
            opening = b""
        if play.has(Action.DRIP) and play.fault is not None:
            for byte in opening + whole:
                connection.wait(play.fault.amount)
                connection.send(bytes([byte]))
        else:
            connection.send((opening + whole) * (2 if play.has(Action.TWICE) else 1))
        if not keeps:
            connection.linger()
        return keeps

    def _send_wildly(self, connection: Connection, fault: Fault, opening: bytes) -> None:
        if fault.action is Action.RAW:
            connection.send(unescaped(fault.text))
            connection.linger()
            return
        endless = chain([opening + b'{"x": "'], repeat(b"x" * CHUNK_BYTES))
        for piece in flood(fault.text) if fault.action is Action.FLOOD else endless:
            connection.send(piece)
