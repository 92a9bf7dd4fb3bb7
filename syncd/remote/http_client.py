"""The only door to httpx: how clients are made, how an exchange is bounded, and how its failures are told.

httpx shows URLs in its log lines, in the text of some errors and in `request.url`; a signed URL is a secret. So nothing
of httpx leaves this module: an exchange returns an `Response` or raises `NoResponse`, whose text is ours.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

# httpx imports its command line if the libraries for it are at hand, and with it 4 MiB that no daemon needs.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import h11
import httpx

from syncd import __version__
from syncd.core.settings import is_loopback
from syncd.core.text import one_line, redacted
from syncd.core.waiter import Waiter
from syncd.remote.exchange_monitor import ExchangeMonitor, StaleResponse
from syncd.remote.keepalive import KEEP_S, ConnectionTime, ReuseDecision, idle_at_s, reuse_decision
from syncd.remote.route import NetworkRoute, keep_asking, route_of

if TYPE_CHECKING:
    from syncd.remote.network import Network

CONNECT_S = 10.0
# The write time-out counts for each send of a block; a slow uplink needs its time for one.
WRITE_S = 60.0
# Nobody waits longer for an uplink to bring out what the kernel holds: some MiB.
DRAIN_S = 1800.0
_LARGEST_ANSWER = 1 << 20
_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_LATE = "no answer in time"
# What a person can do something about, in the words of OpenSSL, Python and the resolver; special ones first.
_MEANINGS = {
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
# What Python puts before and after an error's words.
_NOISE = re.compile(r"^(\[[^]]*\] *)+| *\(_ssl\.c:[0-9]+\)")


class NoResponse(Exception):
    """No usable HTTP answer came; the text says why and holds no URL. `reached`: there was a connection at least."""

    def __init__(self, reason: str, *, reached: bool = True) -> None:
        super().__init__(reason)
        self.reached = reached


class _Untouched(Exception):
    """A kept connection ended before one byte of the request arrived."""


@dataclass(frozen=True)
class Response:
    """A bounded HTTP answer. `server_wall_s` is the answer's `Date`, if it had a readable one."""

    status: int
    headers: httpx.Headers
    body: bytes
    server_wall_s: float | None

    def header_lines(self, name: str) -> list[str]:
        """Every line of a header that may come more than once."""
        return self.headers.get_list(name)


Taken = TypeVar("Taken")

# What the libraries raise where no answer can be had.
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


@dataclass
class _KeptConnection:
    """The client of one origin, with one connection at most; `last`: the end of its last exchange, None: in use."""

    client: httpx.Client
    connection: socket.socket | None = None
    route: NetworkRoute | None = None
    last: ConnectionTime | None = None

    def may_be_used(self, now: ConnectionTime) -> bool:
        """Whether its connection is believed to be alive."""
        reusable = ReuseDecision.USE if self.last is None else reuse_decision(self.last, now)
        return reusable is ReuseDecision.USE or (
            reusable is ReuseDecision.LOOK and self.route is not None and self.route.is_unchanged()
        )


class HttpClient:
    """A client of one origin, or of buckets. Connections are kept for a while; `policy.warmth` says for how long."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
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
        """One request and its answer, the answer's body bounded and not decoded, redirects not followed.

        The whole answer must come within `read_s` seconds of the request's end. A request that met a connection already
        closed is sent again at once, so `content` must bear to be iterated twice. Raises `NoResponse`, `Stop`,
        `Superseded`, and what iterating `content` raises.
        """
        body = content if isinstance(content, bytes | None) else _Outgoing(content)
        try:
            return self._exchange_once(method, url, headers, read_s, body)
        except _Untouched:
            return self._exchange_once(method, url, headers, read_s, body)

    def _exchange_once(
        self, method: str, url: str, headers: Mapping[str, str], read_s: float, body: bytes | _Outgoing | None
    ) -> Response:
        with self._asked(method, url, headers, read_s, body) as (response, line):
            return _answer(response, line)

    def download(self, url: str, *, read_s: float, take: Callable[[Iterator[bytes]], Taken]) -> Response | Taken:
        """What `take` makes of the body of a GET, as it comes and undecoded; the answer itself where it is not a 200.

        Raises `NoResponse`, in the middle of the body too, `Stop`, `Superseded`, and what `take` raises.
        """
        with ExitStack() as opened:
            response, line = opened.enter_context(self._asked("GET", url, {}, read_s, None))
            if response.status_code != 200:
                return _answer(response, line)
            line.cancel_deadline()  # a large body takes its time
            return take(_blocks(response, line))

    @contextmanager
    def _asked(
        self, method: str, url: str, headers: Mapping[str, str], read_s: float, body: bytes | _Outgoing | None
    ) -> Iterator[tuple[httpx.Response, ExchangeMonitor]]:
        """A request that was sent, and the head of its answer. What fails in the block is the block's own affair."""
        # A read's own time does not know how much of the request is still on its way: the line's does.
        one_read_s = read_s if body is None else read_s + DRAIN_S
        timeout = httpx.Timeout(connect=CONNECT_S, read=one_read_s, write=WRITE_S, pool=CONNECT_S)
        line = ExchangeMonitor(read_s)
        with ExitStack() as opened:
            try:
                self.waiter.interrupt.check()
                kept = opened.enter_context(self._in_use(url))
                line = ExchangeMonitor(read_s, kept.connection)
                self._over().line = line
                line.body = body.blocks if isinstance(body, _Outgoing) else None
                kept.connection = None  # until it has brought an answer
                request = kept.client.stream(
                    method,
                    url,
                    headers=dict(headers),
                    content=body,
                    timeout=timeout,
                    extensions={"trace": line.hear},
                )
                response = opened.enter_context(request)
            except _FAILURES as failure:
                if isinstance(body, _Outgoing) and body.failure is not None:
                    raise body.failure from None
                if line.untouched and not line.overdue:
                    raise _Untouched from None
                raise _no_answer(failure, line) from None
            kept.connection = line.connection
            kept.route = _monitored_route(line.connection)
            yield response, line

    @property
    def idle_at_s(self) -> float | None:
        """When `close_idle` has something to close, in monotonic seconds; None: nothing is open, or it is in use."""
        ends = [None if kept.last is None else idle_at_s(kept.last) for kept in self._kept.values()]
        return max(filter(None, ends)) if ends and None not in ends else None

    def close_idle(self) -> None:
        """At the end of a burst, close everything: a daemon at rest holds no connection, and wakes up once for it."""
        ends_s = self.idle_at_s
        if ends_s is not None and self._clock.monotonic_s() >= ends_s:
            self.drop()

    def drop(self) -> None:
        """Close every connection, one in use after its exchange: after a sleep they look fresh and are dead."""
        for kept in self._kept.values():
            if kept.last is not None:
                kept.client.close()
        self._kept.clear()

    def _over(self) -> Network:
        if self._network is None:
            from syncd.remote.network import Network  # noqa: PLC0415 - loads httpcore, which not every command needs

            self._network = Network(self.waiter)
        return self._network

    @contextmanager
    def _in_use(self, url: str) -> Iterator[_KeptConnection]:
        """The client for a URL, without a connection that may be dead."""
        components = urlsplit(url)
        origin = f"{components.scheme}://{components.netloc}"
        kept = self._kept.get(origin)
        if kept is not None and not kept.may_be_used(self._now()):
            kept.client.close()
            kept = None
        if kept is None:
            kept = self._kept[origin] = _KeptConnection(
                _make_client(components.scheme, components.hostname or "", self._over())
            )
        kept.last = None
        try:
            yield kept
        finally:
            kept.last = self._now()
            if self._kept.get(origin) is not kept:  # all were dropped meanwhile
                kept.client.close()

    def _now(self) -> ConnectionTime:
        return ConnectionTime(self._clock.monotonic_s(), self._clock.boottime_s())


class _Outgoing:
    """A request's body. What making it raises is no failure of the network, whatever its type."""

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
        verify=_tls() if scheme == "https" else False,
        # A proxy for plain http would be shown the key; what is on this machine is never asked for through one.
        trust_env=not local,
        follow_redirects=False,
        limits=httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=KEEP_S),
        # Nothing is decoded: 64 KiB, compressed twice, may be a GiB.
        headers={"User-Agent": f"syncd/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"},
    )
    # A cookie of someone's sign-in page, sent to the API from then on, might be refused there.
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # httpx (0.28) takes no network backend, and its transports' pools, those of the environment's proxies too, do.
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001
        if isinstance(transport, httpx.HTTPTransport):
            transport._pool._network_backend = network  # noqa: SLF001
    return client


def _tls() -> ssl.SSLContext:
    """The system's certificates (and `SSL_CERT_FILE`), since companies add theirs there; else the bundled ones."""
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
    """The route of the connection that the answer comes by, which the kernel has an eye on from now on."""
    if connection is None:
        return None
    keep_asking(connection)
    return route_of(connection)


def _answer(response: httpx.Response, line: ExchangeMonitor) -> Response:
    body = bytearray()
    for piece in _blocks(response, line):
        body += piece
        if len(body) > _LARGEST_ANSWER:
            raise NoResponse(f"the answer is larger than {_LARGEST_ANSWER >> 20} MiB")
    return Response(response.status_code, response.headers, bytes(body), _date(response.headers.get("Date")))


def _blocks(response: httpx.Response, line: ExchangeMonitor) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()
    except _FAILURES as failure:
        raise _no_answer(failure, line) from None


def _date(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _no_answer(failure: Exception, line: ExchangeMonitor) -> NoResponse:
    return NoResponse(_LATE if line.overdue else _reason(failure), reached=line.reached)


def _reason(failure: Exception) -> str:
    match failure:
        case StaleResponse():
            return "what came was there before it was asked for"
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return f"no connection within {CONNECT_S:.0f} s"
        case httpx.ReadTimeout():
            return _LATE
        case httpx.WriteTimeout():
            return "the other side stopped reading"
        case httpx.ProxyError():
            return f"the proxy refused: {one_line(redacted(str(failure)))}"
    text = one_line(redacted(str(failure))) or type(failure).__name__
    for part, meaning in _MEANINGS.items():
        if part in text:
            return meaning
    return _NOISE.sub("", text)
