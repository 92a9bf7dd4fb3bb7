"""The only door to httpx: how clients are made, how an exchange is bounded, and how its failures are told.

httpx shows URLs in its log lines, in the text of some errors and in `request.url`; a signed URL is a secret. So nothing
of httpx leaves this module: an exchange returns an `Answer` or raises `NoAnswer`, whose text is ours.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

# httpx imports its command line if the libraries for it are at hand, and with it 4 MiB that no daemon needs.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import h11
import httpx

from syncd import __version__
from syncd.base.clock import Clock
from syncd.base.config import is_loopback
from syncd.base.interrupt import Interrupt
from syncd.base.text import one_line, redacted
from syncd.effects.route import Route, keep_asking, route_of
from syncd.policy.warmth import KEEP_S, Moment, Trust, cold_at_s, trust

CONNECT_S = 10.0
# The write time-out counts for each send of a block; a slow uplink needs its time for one.
WRITE_S = 60.0
_LARGEST_ANSWER = 1 << 20
_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class NoAnswer(Exception):
    """No usable HTTP answer came; the text says why and holds no URL."""


@dataclass(frozen=True)
class Answer:
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
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    h11.ProtocolError,
    OSError,
    ValueError,
    ImportError,  # a SOCKS proxy in the environment, without the library for it
)


@dataclass
class _Kept:
    """The client of one origin, with one connection at most; `last`: the end of its last exchange, None: in use."""

    client: httpx.Client
    route: Route | None = None
    last: Moment | None = None

    def may_be_used(self, now: Moment) -> bool:
        """Whether its connection is believed to be alive."""
        trusted = Trust.USE if self.last is None else trust(self.last, now)
        return trusted is Trust.USE or (trusted is Trust.LOOK and self.route is not None and self.route.stands())


class Exchanger:
    """A client of one origin, or of buckets. Connections are kept for a while; `policy.warmth` says for how long."""

    def __init__(self, interrupt: Interrupt, clock: Clock) -> None:
        self._interrupt = interrupt
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        read_s: float,
        content: bytes | Iterable[bytes] | None = None,
    ) -> Answer:
        """One request and its answer, the answer's body bounded, redirects not followed. Raises `NoAnswer`, `Stop`."""
        timeout = httpx.Timeout(connect=CONNECT_S, read=read_s, write=WRITE_S, pool=CONNECT_S)
        try:
            with (
                self._interrupt.region(),
                self._in_use(url) as kept,
                kept.client.stream(method, url, headers=dict(headers), content=content, timeout=timeout) as response,
            ):
                kept.route = _attended(response)
                body = _bounded(response)
                return Answer(response.status_code, response.headers, body, _date(response.headers.get("Date")))
        except _FAILURES as failure:
            raise NoAnswer(_reason(failure)) from None

    def download(self, url: str, *, read_s: float, take: Callable[[Iterator[bytes]], Taken]) -> Answer | Taken:
        """What `take` makes of the body of a GET, as it comes and undecoded; the answer itself where it is not a 200.

        Raises `NoAnswer`, in the middle of the body too, `Stop`, and what `take` raises.
        """
        timeout = httpx.Timeout(connect=CONNECT_S, read=read_s, write=WRITE_S, pool=CONNECT_S)
        with ExitStack() as opened:
            try:
                opened.enter_context(self._interrupt.region())
                kept = opened.enter_context(self._in_use(url))
                asked = kept.client.stream("GET", url, headers={"Accept-Encoding": "identity"}, timeout=timeout)
                response = opened.enter_context(asked)
                if response.status_code != 200:
                    return Answer(
                        response.status_code, response.headers, _bounded(response), _date(response.headers.get("Date"))
                    )
            except _FAILURES as failure:
                raise NoAnswer(_reason(failure)) from None
            return take(_blocks(response))

    @property
    def cold_at_s(self) -> float | None:
        """When `drop_cold` has something to close, in monotonic seconds; None: nothing is open, or it is in use."""
        ends = [None if kept.last is None else cold_at_s(kept.last) for kept in self._kept.values()]
        return max(filter(None, ends)) if ends and None not in ends else None

    def drop_cold(self) -> None:
        """At the end of a burst, close everything: a daemon at rest holds no connection, and wakes up once for it."""
        ends_s = self.cold_at_s
        if ends_s is not None and self._clock.monotonic_s() >= ends_s:
            self.drop()

    def drop(self) -> None:
        """Close every connection: after a sleep they look fresh and are dead."""
        for kept in self._kept.values():
            kept.client.close()
        self._kept.clear()

    @contextmanager
    def _in_use(self, url: str) -> Iterator[_Kept]:
        """The client for a URL, without a connection that may be dead."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        kept = self._kept.get(origin)
        if kept is not None and not kept.may_be_used(self._now()):
            kept.client.close()
            kept = None
        if kept is None:
            kept = self._kept[origin] = _Kept(_make_client(parts.scheme, parts.hostname or ""))
        kept.last = None
        try:
            yield kept
        finally:
            kept.last = self._now()

    def _now(self) -> Moment:
        return Moment(self._clock.monotonic_s(), self._clock.boottime_s())


def _make_client(scheme: str, host: str) -> httpx.Client:
    local = is_loopback(host)
    return httpx.Client(
        verify=_tls() if scheme == "https" else False,
        # A proxy for plain http would be shown the key; what is on this machine is never asked for through one.
        trust_env=not local,
        follow_redirects=False,
        limits=httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=KEEP_S),
        headers={"User-Agent": f"syncd/{__version__}", "Accept": "*/*"},
    )


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


def _attended(response: httpx.Response) -> Route | None:
    """The route of the connection that the answer comes by, which the kernel has an eye on from now on."""
    connection = response.extensions["network_stream"].get_extra_info("socket")
    if connection is None:
        return None
    keep_asking(connection)
    return route_of(connection)


def _blocks(response: httpx.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()
    except _FAILURES as failure:
        raise NoAnswer(_reason(failure)) from None


def _bounded(response: httpx.Response) -> bytes:
    body = b""
    for piece in response.iter_bytes():
        body += piece
        if len(body) > _LARGEST_ANSWER:
            raise NoAnswer(f"the answer is larger than {_LARGEST_ANSWER >> 20} MiB")
    return body


def _date(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _reason(failure: Exception) -> str:
    match failure:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return f"no connection within {CONNECT_S:.0f} s"
        case httpx.ReadTimeout():
            return "no answer in time"
        case httpx.WriteTimeout():
            return "the other side stopped reading"
        case httpx.ProxyError():
            return f"the proxy refused: {one_line(redacted(str(failure)))}"
    text = one_line(redacted(str(failure))) or type(failure).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "the server's certificate is not trusted here (set SSL_CERT_FILE to your company's certificates?)"
    return text
