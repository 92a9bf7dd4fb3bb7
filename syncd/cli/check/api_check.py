"""Checks with one request that the API answers, and that it knows the key and the sandbox.

The request is `GET …/{id}`, which changes nothing there, or the list of sandboxes if one is still to be acquired.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from msgspec import Struct

from syncd.cli.check.finding import Finding, Grade
from syncd.cli.check.thresholds import judge_clock, judge_end
from syncd.core.api_key import ApiKey
from syncd.core.clock import Clock
from syncd.core.errors import SandboxNotFound
from syncd.core.formatting import ago
from syncd.core.interrupt import Interrupt
from syncd.core.settings import is_loopback
from syncd.core.text import one_line
from syncd.core.waiter import Waiter
from syncd.remote.account import Account
from syncd.remote.api import Api, SandboxInfo
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.http_client import HttpClient, Response
from syncd.remote.target import Target

# Certificate failures by the words of `remote.http_client`. FAIL is for what a person can correct on this machine.
_CERTIFICATE_FAILURES = (
    (
        "certificate has expired",
        Grade.FAIL_FOR_NOW,
        "compare this machine's clock; if it is right, tell the server's owner",
    ),
    ("not valid yet", Grade.FAIL, "set the clock: sudo timedatectl set-ntp true"),
    ("is for another host", Grade.FAIL, "correct sandbox.base_url, or sign in to this network"),
    (
        "certificate is not trusted",
        Grade.FAIL,
        "if your company's proxy inspects TLS, name its root certificate in SSL_CERT_FILE, or add it to the system's",
    ),
)
# Variables that other programs read, and syncd does not.
_OTHER_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


class _MeasuringClient(HttpClient):
    """Measures each exchange: the status, duration, clock skew and certificate of its answer, a refusal's as well."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(Waiter(Interrupt(), clock))
        self._clock = clock
        self.status: int | None = None
        self.skew_s: float | None = None
        self.seconds = 0.0

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        read_s: float,
        content: bytes | Iterable[bytes] | None = None,
    ) -> Response:
        started_s = self._clock.monotonic_s()
        answer = super().exchange(method, url, headers=headers, read_s=read_s, content=content)
        self.seconds = self._clock.monotonic_s() - started_s
        self.status = answer.status
        if answer.server_wall_s is not None:
            self.skew_s = self._clock.wall_s() - answer.server_wall_s
        return answer


def check_api(
    target: Target, lifetime: SandboxEnd | None, *, key: ApiKey, clock: Clock
) -> Generator[Finding, None, bool]:
    """Send one request, without retries, so that a person at the terminal sees the first failure as it is.

    If the target has no sandbox yet, as one will be acquired, the request is for the account's list. Returns True if
    the API knows the sandbox.
    """
    http_client = _MeasuringClient(clock)
    info: SandboxInfo | int | StepFailed
    try:
        if target.sandbox_id:
            info = Api(target, key, http_client, clock).sandbox()
        else:
            info = Account(target.base_url, key, http_client, clock).count()
    except StepFailed as failure:
        info = failure
    finally:
        http_client.drop()
    answered = f"{target.base_url} answered in {http_client.seconds:.2f} s"
    if not isinstance(info, StepFailed):
        yield Finding("api", Grade.PASS, answered)
        if isinstance(info, SandboxInfo):
            yield _sandbox_finding(target, info, clock.wall_s())
        else:
            yield Finding("sandbox", Grade.NOTE, f"none yet: the first sync acquires one (the account has {info:,})")
    elif lifetime is not None and info.refusal is SandboxNotFound:
        yield Finding("api", Grade.PASS, answered)
        yield Finding("sandbox", Grade.NOTE, f"{one_line(target.sandbox_id)} is gone: the next sync acquires another")
    elif info.action is FailureAction.REFUSED:
        yield Finding("api", Grade.PASS, answered)
        yield Finding("sandbox", Grade.FAIL, info.message, info.hint)
    else:
        remedy = info.hint if info.hint and http_client.status else _remedy(target.base_url, http_client.status)
        yield _certificate_failure(target, info.message) or Finding(
            "api", Grade.FAIL_FOR_NOW, f"{target.base_url}: {info.message}", remedy
        )
    if isinstance(info, SandboxInfo):
        yield _lifetime_finding(lifetime, clock.wall_s())
    yield judge_clock(http_client.skew_s)
    return isinstance(info, SandboxInfo)


class SandboxEnd(Struct, frozen=True):
    """The end of an acquired sandbox by the wall clock; None if it never ends."""

    ends_wall_s: float | None


def _lifetime_finding(lifetime: SandboxEnd | None, wall_s: float) -> Finding:
    if lifetime is None:
        return Finding("time to live", Grade.NOTE, "the API does not tell when a sandbox ends that others acquired")
    return judge_end(None if lifetime.ends_wall_s is None else lifetime.ends_wall_s - wall_s)


def _sandbox_finding(target: Target, info: SandboxInfo, wall_s: float) -> Finding:
    servers = ", ".join(server.server_name or server.id for server in info.servers) or "none"
    created_s = _wall_s(info.created_at)
    since = f", created {ago(wall_s - created_s)}" if created_s is not None and created_s <= wall_s else ""
    what = one_line(f"{target.sandbox_id} is {info.status or 'there'}{since}; its servers: {servers}")
    if info.status == "error":
        return Finding("sandbox", Grade.WARN, what, "syncd push --force; if it stays so, set sandbox.id to another one")
    return Finding("sandbox", Grade.PASS, what)


def _wall_s(text: str) -> float | None:
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _certificate_failure(target: Target, message: str) -> Finding | None:
    """Return the finding of a certificate failure with its remedy; None for any other failure."""
    for words, grade, remedy in _CERTIFICATE_FAILURES:
        if words in message:
            return Finding("certificate", grade, f"{target.base_url}: {message}", remedy)
    return None


def _remedy(base_url: str, status: int | None) -> str:
    if status is None:
        proxy = _proxy(base_url)
        suspects = f"the network, the proxy {proxy}" if proxy else "the network"
        return f"check {suspects} and sandbox.base_url, then run `syncd check` again"
    return "nothing to do on this machine: run `syncd check` again later"


def route_findings(base_url: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield findings about the proxy and the certificates that the environment names for the API."""
    if is_loopback(urlsplit(base_url).hostname or ""):
        return
    if proxy := _proxy(base_url):
        yield Finding("proxy", Grade.NOTE, f"requests go through {proxy}")
    if urlsplit(base_url).scheme == "https":
        yield from _certificate_stores(environ)


def _certificate_stores(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield findings about the certificates that are trusted."""
    named = False
    for name, exists in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        path = environ.get(name)
        if not path:
            continue
        remedy = f"correct or unset {name}"
        if not exists(path):
            yield Finding("certificates", Grade.WARN, f"${name} names {path}, which does not exist", remedy)
        elif name == "SSL_CERT_FILE" and not _count_certificates(path):
            yield Finding("certificates", Grade.WARN, f"${name} names {path}, which holds no certificate", remedy)
        else:
            named = True
            yield Finding("certificates", Grade.NOTE, f"those of {path} are trusted (${name})")
    others = [name for name in _OTHER_VARIABLES if environ.get(name)]
    if others and not named:
        what = f"${others[0]} is set, which syncd does not read"
        yield Finding("certificates", Grade.NOTE, what, f"if it is needed here: export SSL_CERT_FILE=${others[0]}")
    if not named:
        paths = ssl.get_default_verify_paths()
        store = paths.openssl_cafile if os.path.isfile(paths.openssl_cafile) else paths.openssl_capath
        if os.path.exists(store):
            yield Finding("certificates", Grade.PASS, f"those of the system are trusted ({store})")
        else:
            yield Finding("certificates", Grade.PASS, "those found in /etc, else those of certifi, are trusted")


def _count_certificates(path: str) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError):  # an SSLError is an OSError
        return 0
    return context.cert_store_stats()["x509"]


def _proxy(base_url: str) -> str:
    """Return the proxy that the environment names for this address, without its password; "" if none."""
    components = urlsplit(base_url)
    host = components.hostname or ""
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(components.scheme) or proxies.get("all") or ""
    if is_loopback(host) or urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        return ""
    return proxy and _without_password(proxy)


def _without_password(proxy: str) -> str:
    components = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return one_line(components.netloc.rpartition("@")[2] or "a proxy with an invalid address")
