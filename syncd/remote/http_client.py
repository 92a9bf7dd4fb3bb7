"""Sends HTTP requests with httpx: makes the clients, bounds each exchange, and translates its failures.

httpx shows URLs in its log lines, in the text of some errors and in `request.url`; a signed URL is a secret. So nothing
of httpx leaves this module: an exchange returns a `Response` or raises `NoResponse`, whose text is syncd's own. And
only this module knows httpx, and httpcore and h11 below it; docs/architecture.md lists what it takes for granted.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

# httpx imports its command line if the libraries for it are installed: 4 MiB that no daemon needs.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import h11
import httpx

from syncd import __version__
from syncd.core.settings import is_loopback
from syncd.core.text import one_line, redacted
from syncd.core.waiter import Waiter
from syncd.remote.exchange_monitor import ExchangeMonitor, StaleResponse
from syncd.remote.keepalive import KEEP_S, ConnectionTime, ReuseDecision, idle_at_s, reuse_decision
from syncd.remote.pacing import RequestPacing
from syncd.remote.route import NetworkRoute, enable_keepalive, route_of

if TYPE_CHECKING:
    from syncd.remote.network import Network, NetworkErrors

CONNECT_S = 10.0
# The write time-out is for each send of a block, which takes a slow uplink its time.
WRITE_S = 60.0
# The longest wait for an uplink to send what the kernel holds: some MiB.
DRAIN_S = 1800.0
_LARGEST_ANSWER = 1 << 20
_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_TIMED_OUT = "no answer in time"
# Errors that a person can do something about, by the words of OpenSSL, Python and the resolver; special ones first.
_REASONS = {
    "certificate has expired": "the server's certificate has expired (or is this machine's clock ahead?)",
    "not yet valid": "the server's certificate is not valid yet (is this machine's clock behind?)",
    "certificate is not valid for": "the server's certificate is for another host",
    "Hostname mismatch": "the server's certificate is for another host",
    "IP address mismatch": "the server's certificate is for another host",
    "CERTIFICATE_VERIFY_FAILED": (
        "the server's certificate is not trusted here (set SSL_CERT_FILE to your company's certificates?)"
    ),
    "WRONG_VERSION_NUMBER": "no TLS is spoken on that port",
    "record layer failure": "no TLS is spoken on that port",
    "Name or service not known": "its name is not known",
    "Temporary failure in name resolution": "its name cannot be looked up just now",
    "No address associated with hostname": "its name has no address",
}
# Added by Python before and after an error's words.
_AFFIXES = re.compile(r"^(\[[^]]*\] *)+| *\(_ssl\.c:[0-9]+\)")


class NoResponse(Exception):
    """No usable HTTP answer came; the text says why and holds no URL. `reached`: a connection was made."""

    def __init__(self, reason: str, *, reached: bool = True) -> None:
        super().__init__(reason)
        self.reached = reached


class _RequestUnread(Exception):
    """A kept connection ended before one byte of the request arrived."""


class Response(Struct, frozen=True):
    """A bounded HTTP answer: the names of its headers in lower case; its `Date` as seconds, if it had a valid one."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    server_wall_s: float | None

    def header(self, name: str) -> str | None:
        """Return a header, joined by commas if it came more than once; None if it did not come."""
        return ", ".join(self.header_lines(name)) or None

    def header_lines(self, name: str) -> list[str]:
        """Return every line of a header that may come more than once."""
        return [value for each, value in self.headers if each == name.lower()]


Result = TypeVar("Result")

# Raised by the libraries when there is no answer.
_FAILURES = (
    StaleResponse,
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    h11.ProtocolError,
    OSError,
    ValueError,
    ImportError,  # a SOCKS proxy in the environment, without the library for it
)


class _KeptConnection(Struct):
    """The client of one origin, with at most one connection. `last`: end of its last exchange; None while in use."""

    client: httpx.Client
    connection: socket.socket | None = None
    route: NetworkRoute | None = None
    last: ConnectionTime | None = None

    def may_be_used(self, now: ConnectionTime) -> bool:
        """True if its connection is alive, as far as known."""
        decision = ReuseDecision.USE if self.last is None else reuse_decision(self.last, now)
        return decision is ReuseDecision.USE or (
            decision is ReuseDecision.CHECK_ROUTE and self.route is not None and self.route.is_unchanged()
        )


class HttpClient:
    """Sends requests and keeps their connections for a while, by the rules of `remote.keepalive`.

    `api_pacing` is the API's limit of requests; `ApiClient` keeps to it, the bucket's requests do not count.
    """

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.api_pacing = RequestPacing()
        self._clock = waiter.clock
        self._network: Network | None = None
        self._kept: dict[str, _KeptConnection] = {}

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        read_s: float,
        content: bytes | Iterable[bytes] | None = None,
    ) -> Response:
        """Send a request and return its answer, the body bounded and not decoded, redirects not followed.

        The whole answer must come within `read_s` seconds of the request's end. A request that met a connection already
        closed is sent again at once, so `content` must be iterable twice. Raises `NoResponse`, `Stop`,
        `Superseded`, and what iterating `content` raises.
        """
        body = content if isinstance(content, bytes | None) else _RequestBody(content)
        try:
            return self._exchange_once(method, url, headers, read_s, body)
        except _RequestUnread:
            return self._exchange_once(method, url, headers, read_s, body)

    def _exchange_once(
        self, method: str, url: str, headers: Mapping[str, str], read_s: float, body: bytes | _RequestBody | None
    ) -> Response:
        with self._stream(method, url, headers, read_s, body) as (response, monitor):
            return _answer(response, monitor)

    def download(self, url: str, *, read_s: float, consume: Callable[[Iterator[bytes]], Result]) -> Response | Result:
        """Return the result of `consume`, called with the undecoded body of a GET; the answer itself if it is no 200.

        Raises `NoResponse`, in the middle of the body too, `Stop`, `Superseded`, and what `consume` raises.
        """
        with ExitStack() as opened:
            response, monitor = opened.enter_context(self._stream("GET", url, {}, read_s, None))
            if response.status_code != 200:
                return _answer(response, monitor)
            monitor.cancel_deadline()  # a large body takes its time
            return consume(_blocks(response, monitor))

    @contextmanager
    def _stream(
        self, method: str, url: str, headers: Mapping[str, str], read_s: float, body: bytes | _RequestBody | None
    ) -> Iterator[tuple[httpx.Response, ExchangeMonitor]]:
        """Send a request and yield the head of its answer. Errors of the block itself are not translated."""
        # The time-out of a read does not know how much of the request is still unsent; the monitor does.
        one_read_s = read_s if body is None else read_s + DRAIN_S
        timeout = httpx.Timeout(connect=CONNECT_S, read=one_read_s, write=WRITE_S, pool=CONNECT_S)
        monitor = ExchangeMonitor(read_s)
        with ExitStack() as opened:
            try:
                self.waiter.interrupt.check()
                kept = opened.enter_context(self._client_for(url))
                monitor = ExchangeMonitor(read_s, kept.connection)
                self._get_network().monitor = monitor
                monitor.body = body.blocks if isinstance(body, _RequestBody) else None
                kept.connection = None  # until it has brought an answer
                request = kept.client.stream(
                    method,
                    _parsed(url),
                    headers=dict(headers),
                    content=body,
                    timeout=timeout,
                    extensions={"trace": _reporter(monitor)},
                )
                response = opened.enter_context(request)
            except _FAILURES as failure:
                if isinstance(body, _RequestBody) and body.failure is not None:
                    raise body.failure from None
                if monitor.unread and not monitor.overdue:
                    raise _RequestUnread from None
                raise _no_response(failure, monitor) from None
            kept.connection = monitor.connection
            kept.route = _monitored_route(monitor.connection)
            yield response, monitor

    @property
    def idle_at_s(self) -> float | None:
        """The monotonic second at which `close_idle` closes the connections; None if none is open, or one is in use."""
        ends = [None if kept.last is None else idle_at_s(kept.last) for kept in self._kept.values()]
        return max(filter(None, ends)) if ends and None not in ends else None

    def close_idle(self) -> None:
        """Close all connections if they are idle for long: an idle daemon wakes up once for that, and holds none."""
        ends_s = self.idle_at_s
        if ends_s is not None and self._clock.monotonic_s() >= ends_s:
            self.drop()

    def drop(self) -> None:
        """Close all connections, one in use after its exchange: after a suspend they look alive and are dead."""
        for kept in self._kept.values():
            if kept.last is not None:
                kept.client.close()
        self._kept.clear()

    def _get_network(self) -> Network:
        if self._network is None:
            from syncd.remote.network import Network  # noqa: PLC0415 - not every command connects

            self._network = Network(self.waiter, _network_errors())
        return self._network

    @contextmanager
    def _client_for(self, url: str) -> Iterator[_KeptConnection]:
        """Yield the client for a URL, without a connection that may be dead."""
        components = urlsplit(url)
        origin = f"{components.scheme}://{components.netloc}"
        kept = self._kept.get(origin)
        if kept is not None and not kept.may_be_used(self._connection_time()):
            kept.client.close()
            kept = None
        if kept is None:
            kept = self._kept[origin] = _KeptConnection(
                _make_client(components.scheme, components.hostname or "", self._get_network())
            )
        kept.last = None
        try:
            yield kept
        finally:
            kept.last = self._connection_time()
            if self._kept.get(origin) is not kept:  # `drop` was called meanwhile
                kept.client.close()

    def _connection_time(self) -> ConnectionTime:
        return ConnectionTime(self._clock.monotonic_s(), self._clock.boottime_s())


def _network_errors() -> NetworkErrors:
    """Return httpcore's errors, of which httpx makes its own; after `write` httpcore still reads an early answer."""
    import httpcore  # noqa: PLC0415 - not every command connects

    from syncd.remote.network import NetworkErrors  # noqa: PLC0415

    return NetworkErrors(
        connect=httpcore.ConnectError,
        connect_timeout=httpcore.ConnectTimeout,
        read=httpcore.ReadError,
        read_timeout=httpcore.ReadTimeout,
        write=httpcore.WriteError,
        write_timeout=httpcore.WriteTimeout,
    )


def _reporter(monitor: ExchangeMonitor) -> Callable[[str, Mapping[str, Any]], None]:
    """Return a callback for httpcore's `trace` extension that reports each stage to the monitor."""

    def report(name: str, info: Mapping[str, Any]) -> None:
        match name.partition(".")[2]:
            case "connect_tcp.complete" | "start_tls.complete":
                monitor.note_connection(info["return_value"].get_extra_info("socket"))
            case "send_request_headers.started":
                monitor.note_head()
            case "send_request_body.started":
                monitor.note_body()
            case "receive_response_headers.started":
                monitor.note_sent()
            case "send_request_headers.failed" | "send_request_body.failed":
                monitor.note_unsent()
            case "receive_response_headers.failed":
                monitor.note_no_answer()
            case "receive_response_headers.complete":
                monitor.note_answer()

    return report


# An edit requests the same few URLs as the one before, and httpx looks at each character.
_parsed = lru_cache(maxsize=8)(httpx.URL)


class _NoCookies(httpx.Cookies):
    """Keeps no cookies: one of a sign-in page, sent to the API from then on, might be refused there."""

    def extract_cookies(self, response: httpx.Response) -> None:
        pass


class _RequestBody:
    """A request's body. An exception from iterating it is no failure of the network, whatever its type."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self.blocks = blocks
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.blocks
        except Exception as failure:
            self.failure = failure
            raise


def _make_client(scheme: str, host: str, network: Network) -> httpx.Client:
    local = is_loopback(host)
    client = httpx.Client(
        verify=_tls_context() if scheme == "https" else False,
        # A proxy for plain http would see the key; this machine itself is never reached through one.
        trust_env=not local,
        follow_redirects=False,
        limits=httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=KEEP_S),
        # Nothing is decoded: 64 KiB, compressed twice, may be a GiB.
        headers={"User-Agent": f"syncd/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"},
    )
    client._cookies = _NoCookies()  # noqa: SLF001 - the property takes a copy, of its own class
    # httpx (0.28) takes no network backend; its transports' pools, those of the environment's proxies too, do.
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001
        if isinstance(transport, httpx.HTTPTransport):
            transport._pool._network_backend = network  # type: ignore[assignment]  # noqa: SLF001
    return client


def _tls_context() -> ssl.SSLContext:
    """Trust the system's certificates (and `SSL_CERT_FILE`), where companies add theirs; else the bundled ones."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        bundle = next((path for path in _SYSTEM_BUNDLES if os.path.exists(path)), None)
        if bundle is None:
            import certifi  # noqa: PLC0415 - only where the system has none

            bundle = certifi.where()
        context.load_verify_locations(bundle)
    return context


def _monitored_route(connection: socket.socket | None) -> NetworkRoute | None:
    """Return the connection's route, and have the kernel check from now on that the peer is alive."""
    if connection is None:
        return None
    enable_keepalive(connection)
    return route_of(connection)


def _answer(response: httpx.Response, monitor: ExchangeMonitor) -> Response:
    body = bytearray()
    for piece in _blocks(response, monitor):
        body += piece
        if len(body) > _LARGEST_ANSWER:
            raise NoResponse(f"the answer is larger than {_LARGEST_ANSWER >> 20} MiB")
    headers = tuple(response.headers.multi_items())
    return Response(response.status_code, headers, bytes(body), _date(response.headers.get("Date")))


def _blocks(response: httpx.Response, monitor: ExchangeMonitor) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()
    except _FAILURES as failure:
        raise _no_response(failure, monitor) from None


def _date(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _no_response(failure: Exception, monitor: ExchangeMonitor) -> NoResponse:
    return NoResponse(_TIMED_OUT if monitor.overdue else _reason(failure), reached=monitor.reached)


def _reason(failure: Exception) -> str:
    match failure:
        case StaleResponse():
            return "the answer came before its request"
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return f"no connection within {CONNECT_S:.0f} s"
        case httpx.ReadTimeout():
            return _TIMED_OUT
        case httpx.WriteTimeout():
            return "the other side stopped reading"
        case httpx.ProxyError():
            return f"the proxy refused: {one_line(redacted(str(failure)))}"
    text = one_line(redacted(str(failure))) or type(failure).__name__
    for part, meaning in _REASONS.items():
        if part in text:
            return meaning
    return _AFFIXES.sub("", text)
