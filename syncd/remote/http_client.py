"""Sends HTTP requests with httpx over httpcore's pools: bounds each exchange, and translates its failures.

Requests go straight to the transport: httpx's client would add redirects, cookies, the URL's own sign-in and a log line
with the URL. That is also in the text of some errors and in `request.url`, and a signed URL is a secret. So nothing of
httpx leaves this module: an exchange returns a `Response` or raises `NoResponse`, whose text is syncd's own. And only
this module and `remote.network` know httpx, and httpcore below it; `docs/internals.md` says what a successor has to
bring.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from math import inf
from typing import TypeVar
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx
from msgspec import Struct

from syncd import __version__
from syncd.core.settings import is_loopback
from syncd.core.text import one_line, redacted
from syncd.core.waiter import Waiter
from syncd.remote.failure import http_date_s, retry_after_s
from syncd.remote.network import Exchange, Network, Phase, Step

CONNECT_S = 10.0
# The write time-out is for each send of a block, which takes a slow uplink its time.
WRITE_S = 60.0
# The longest wait for an uplink to send what the kernel holds: some MiB.
DRAIN_S = 1800.0
# The longest is what a set-up printed: its start and its end, each byte of which JSON may write as six characters.
_LARGEST_ANSWER = 8 << 20
# Nothing is decoded: 64 KiB, compressed twice, may be a GiB.
_HEADERS = {"User-Agent": f"syncd/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
# Errors that a person can do something about, by the words of OpenSSL, the resolver and httpcore; special ones first.
_CLOSED = "the other side closed the connection"
_NO_HTTP = "what it sent is not HTTP"
_REASONS = {
    "Server disconnected": _CLOSED,
    "Connection reset by peer": _CLOSED,
    "Broken pipe": _CLOSED,
    "EOF occurred in violation of protocol": _CLOSED,
    "unexpected eof while reading": _CLOSED,  # the same, in the words of OpenSSL 3
    "unknown error": _CLOSED,  # Python's words for a TLS connection that ended in the middle of a write
    "certificate has expired": "the server's certificate has expired (or is this machine's clock ahead?)",
    "not yet valid": "the server's certificate is not valid yet (is this machine's clock behind?)",
    "certificate is not valid for": "the server's certificate is for another host",
    "CERTIFICATE_VERIFY_FAILED": (
        "the server's certificate is not trusted here (set SSL_CERT_FILE to your company's certificates?)"
    ),
    "WRONG_VERSION_NUMBER": "no TLS is spoken on that port",
    "illegal status line": _NO_HTTP,
    "illegal request line": _NO_HTTP,  # h11's words where the first byte is a letter of none of HTTP's
    "Name or service not known": "its name is not known",
    "Temporary failure in name resolution": "its name cannot be looked up just now",
    "socksio": "the proxy of the environment is a SOCKS proxy, which needs the package socksio",
}
_PROXY = re.compile(
    r"(?:(?P<scheme>\w+)://)?(?:(?P<user>.*)@)?(?P<place>(?:[^/?#:@\[\]\s]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)(?:[/?#].*)?"
)
# Added by Python before and after an error's words.
_AFFIXES = re.compile(r"^(\[[^]]*\] *)+| *\(_ssl\.c:[0-9]+\)")


class NoResponse(Exception):
    """No usable HTTP answer came; the text says why and holds no URL. `reached`: a connection was made."""

    def __init__(self, reason: str, *, reached: bool = True) -> None:
        super().__init__(reason)
        self.reached = reached


class Response(Struct, frozen=True):
    """A bounded HTTP answer: the names of its headers in lower case; its `Date` as seconds, if it had a valid one.

    `retry_after_s` are the seconds that the server asks to wait, if it does.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    server_wall_s: float | None
    retry_after_s: float | None

    def header(self, name: str) -> str | None:
        """Return a header, joined by commas if it came more than once; None if it did not come."""
        return ", ".join(value for each, value in self.headers if each == name.lower()) or None


Result = TypeVar("Result")

# Raised by the libraries when there is no answer.
_FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    httpx.InvalidURL,
    httpx.RequestError,
    OSError,
    ValueError,
    ImportError,  # a SOCKS proxy in the environment, without the library for it
)


class _Transport(httpx.BaseTransport):
    """Sends httpx's requests over a pool of httpcore's for each origin, made when it is needed."""

    def __init__(self, network: Network) -> None:
        self.pools: dict[tuple[str, bytes], httpcore.ConnectionPool] = {}
        self._network = network

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        origin = url.scheme, url.netloc
        pool = self.pools.get(origin)
        if pool is None:
            pool = self.pools[origin] = httpcore.ConnectionPool(
                ssl_context=_tls_context() if url.scheme == "https" else None,
                proxy=_proxy_of(url),
                network_backend=self._network,
            )
        try:
            answer = pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except Exception as failure:
            # httpcore lets it through, and the package need not be here.
            if type(failure).__module__ == "socksio.exceptions":
                raise httpcore.ProxyError("it does not speak SOCKS5") from None
            raise
        return httpx.Response(answer.status, headers=answer.headers, stream=_AnswerBody(answer))


class _AnswerBody(httpx.SyncByteStream):
    """The body of an answer."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class HttpClient:
    """Sends requests, and keeps their connections for the next ones; `requests` counts all that were sent.

    A server closes what is idle for long, TCP keepalive ends what is dead, and httpcore sees that before it uses one.
    """

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.requests = 0
        self._network = Network(waiter)
        self._transport = _Transport(self._network)
        self._is_used = False  # by an exchange under way, after which `_dropped` is closed
        self._dropped: list[httpcore.ConnectionPool] = []

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
        with self._stream(method, url, headers, read_s, content) as response:
            return self._answer(response)

    def download(self, url: str, *, read_s: float, consume: Callable[[Iterator[bytes]], Result]) -> Response | Result:
        """Return the result of `consume`, called with the undecoded body of a GET; the answer itself if it is no 200.

        Raises `NoResponse`, in the middle of the body too, `Stop`, `Superseded`, and what `consume` raises.
        """
        with self._stream("GET", url, {}, read_s, None) as response:
            if response.status_code != 200:
                return self._answer(response)
            self._network.exchange.overdue_s = inf  # a large body takes its time
            return consume(_blocks(response))

    @contextmanager
    def _stream(
        self, method: str, url: str, headers: Mapping[str, str], read_s: float, content: bytes | Iterable[bytes] | None
    ) -> Iterator[httpx.Response]:
        """Send a request and yield the head of its answer. Errors of the block itself are not translated.

        A request of which a kept connection took no byte before it ended is sent again, once.
        """
        # The time-out of a read does not know how much of the request is still unsent; the exchange does.
        one_read_s = read_s if content is None else read_s + DRAIN_S
        extensions = {"timeout": {"connect": CONNECT_S, "read": one_read_s, "write": WRITE_S, "pool": CONNECT_S}}
        with ExitStack() as opened:
            opened.callback(self._end_use)
            self._is_used = True
            for is_again in (False, True):
                self.requests += 1
                exchange = self._network.exchange = Exchange(read_s)
                body = content if isinstance(content, bytes | None) else _sent(content)
                try:
                    self.waiter.interrupt.check()
                    request = httpx.Request(
                        method, url, headers={**_HEADERS, **headers}, content=body, extensions=extensions
                    )
                    response = self._transport.handle_request(request)
                    opened.callback(response.close)
                    break
                except _BodyFailed as failure:
                    raise failure.args[0] from None
                except _FAILURES as failure:
                    reached, is_late = exchange.phase is not Phase.IDLE, isinstance(failure, httpcore.TimeoutException)
                    if not reached:
                        self.drop()  # the next ones go by the certificates that are trusted then
                    if is_again or is_late or exchange.phase is not Phase.UNREAD:
                        through = "" if reached else _proxy_part(failure, url)
                        raise NoResponse(f"{through}{_reason(failure)}", reached=reached) from None
            phase = exchange.step(Step.ANSWER)
            if phase is Phase.STALE:
                raise NoResponse("the answer came before its request")
            if phase is Phase.REFUSED and response.is_success:
                raise NoResponse("the answer came before the whole request was sent")
            yield response

    def _answer(self, response: httpx.Response) -> Response:
        body = bytearray()
        for piece in _blocks(response):
            body += piece
            if len(body) > _LARGEST_ANSWER:
                raise NoResponse(f"the answer is larger than {_LARGEST_ANSWER >> 20} MiB")
        server_wall_s = http_date_s(response.headers.get("Date"))
        now_s = self.waiter.clock.wall_s() if server_wall_s is None else server_wall_s
        asked_s = retry_after_s(response.headers.get("Retry-After"), now_s)
        headers = tuple(response.headers.multi_items())
        return Response(response.status_code, headers, bytes(body), server_wall_s, asked_s)

    @property
    def connection(self) -> socket.socket | None:
        """The connection of the exchange under way, from when the head of its request is sent."""
        return self._network.exchange.connection

    def drop(self) -> None:
        """Close all connections, one in use after its exchange: after a suspend they look alive and are dead."""
        self._dropped += self._transport.pools.values()
        self._transport.pools.clear()
        if not self._is_used:
            self._end_use()

    def _end_use(self) -> None:
        self._is_used = False
        while self._dropped:
            self._dropped.pop().close()


class _BodyFailed(Exception):
    """An exception from iterating a request's body, which is no failure of the network, whatever its type."""


def _sent(blocks: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from blocks
    except Exception as failure:  # noqa: BLE001 - it is raised as it was
        raise _BodyFailed(failure) from None


def proxy_for(url: str) -> str:
    """Return the address of the proxy that the environment names for this URL; empty if there is none."""
    proxies, to = getproxies(), httpx.URL(url)
    # A proxy for plain http would see the key; this machine itself is never reached through one.
    if is_loopback(to.host) or proxy_bypass(to.host) or proxy_bypass(to.netloc.decode()):
        return ""
    return proxies.get(to.scheme) or proxies.get("all") or ""


def _proxy_of(url: httpx.URL) -> httpcore.Proxy | None:
    """Return the proxy that the environment names for a URL, if any. Raises `ValueError` for one of another kind."""
    address = proxy_for(str(url))
    if not address:
        return None
    scheme, user, place = proxy_parts(address)
    if scheme not in ("http", "socks5", "socks5h"):  # https: TLS through TLS, which no socket of Python's does
        what = f"the proxy of the environment is reached by {scheme}, which syncd does not do"
        raise ValueError(f"{what}: name it by http")
    name, _, password = user.partition(":")
    auth = (unquote(name).encode(), unquote(password).encode()) if user else None
    return httpcore.Proxy(f"{scheme}://{place}", auth=auth)


def proxy_parts(address: str) -> tuple[str, str, str]:
    """Return the scheme of a proxy's address, the user with the password, and the host with the port.

    A password may hold what ends a host elsewhere (`/`, `?`, `#`, `@`). Raises `ValueError`, whose words, unlike those
    of a library, are none of the address.
    """
    parts = _PROXY.fullmatch(address)
    if parts is None or not parts["place"].isascii():
        raise ValueError("the proxy of the environment has an invalid address: correct HTTPS_PROXY or ALL_PROXY")
    return parts["scheme"] or "http", parts["user"] or "", parts["place"]


def _tls_context() -> ssl.SSLContext:
    """Trust the system's certificates (and `SSL_CERT_FILE`), where companies add theirs; else the bundled ones."""
    paths = ssl.get_default_verify_paths()
    stamps = [os.stat(path).st_mtime_ns for path in (paths.cafile, paths.capath) if path and os.path.exists(path)]
    return _tls_context_of((paths.cafile, paths.capath), tuple(stamps))


@lru_cache(maxsize=1)
def _tls_context_of(paths: tuple[str | None, str | None], _stamps: tuple[int, ...]) -> ssl.SSLContext:
    """Return the context for all connections: each of its own would hold a hundred certificates."""
    context = ssl.create_default_context()
    if paths == (None, None):
        bundle = next((path for path in _SYSTEM_BUNDLES if os.path.exists(path)), None)
        if bundle is None:
            return httpcore.default_ssl_context()
        context.load_verify_locations(bundle)
    return context


def _blocks(response: httpx.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()
    except _FAILURES as failure:
        raise NoResponse(_reason(failure)) from None


def _proxy_part(failure: Exception, url: str) -> str:
    """Return the words that name the proxy to which no connection was made, if one is on the way to this URL."""
    if isinstance(failure, httpcore.ConnectError | httpcore.ConnectTimeout) and (address := proxy_for(url)):
        return f"the proxy of the environment, {one_line(proxy_parts(address)[2])}: "
    return ""


def _reason(failure: Exception) -> str:
    match failure:
        case httpcore.ConnectTimeout() | httpcore.PoolTimeout():
            return f"no connection within {CONNECT_S:.0f} s"
        case httpcore.ReadTimeout():
            return "no answer in time"
        case httpcore.WriteTimeout():
            return "the other side stopped reading"
        case httpcore.ProxyError():
            answered = one_line(redacted(str(failure)))
            remedy = " (HTTPS_PROXY takes its user and password: http://USER:PASSWORD@HOST:PORT)"
            return f"the proxy refused: {answered}{remedy if answered.startswith('407') else ''}"
    text = one_line(redacted(str(failure))) or type(failure).__name__
    for part, meaning in _REASONS.items():
        if part in text:
            return meaning
    return _AFFIXES.sub("", text)
