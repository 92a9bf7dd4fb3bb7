"""What `syncd check` learns from one question to the API: whether it answers, knows the key and the sandbox, and when.

The question is `GET …/{id}`, which changes nothing there.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from syncd.base.apikey import ApiKey
from syncd.base.clock import Clock
from syncd.base.config import is_loopback
from syncd.base.interrupt import Interrupt
from syncd.base.text import one_line
from syncd.effects.api import Api, SandboxInfo
from syncd.effects.failure import StepFailed
from syncd.effects.http import Answer, Exchanger
from syncd.policy.checkup import judge_clock
from syncd.policy.finding import Finding, Grade
from syncd.policy.target import Target
from syncd.policy.verdict import Verdict


class _Listener(Exchanger):
    """Keeps what each answer says beside its body, a refusal's as well."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(Interrupt(), clock)
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
    ) -> Answer:
        started_s = self._clock.monotonic_s()
        answer = super().exchange(method, url, headers=headers, read_s=read_s, content=content)
        self.seconds = self._clock.monotonic_s() - started_s
        self.status = answer.status
        if answer.server_wall_s is not None:
            self.skew_s = self._clock.wall_s() - answer.server_wall_s
        return answer


def contact(target: Target, key: ApiKey, clock: Clock) -> Iterator[Finding]:
    """Ask once; no retries, so that a person at the terminal sees the first failure as it is."""
    listener = _Listener(clock)
    try:
        info: SandboxInfo | StepFailed = Api(target, key, listener, clock).sandbox()
    except StepFailed as failure:
        info = failure
    finally:
        listener.drop()
    answered = f"{target.base_url} answered in {listener.seconds:.2f} s"
    if isinstance(info, SandboxInfo):
        yield Finding("api", Grade.PASS, answered)
        yield _alive(target, info)
    elif info.verdict is Verdict.REFUSED:
        yield Finding("api", Grade.PASS, answered)
        yield Finding("sandbox", Grade.FAIL, info.message, info.hint)
    else:
        remedy = info.hint or _remedy(listener.status)
        yield Finding("api", Grade.FAIL_FOR_NOW, f"{target.base_url}: {info.message}", remedy)
    yield judge_clock(listener.skew_s)


def _alive(target: Target, info: SandboxInfo) -> Finding:
    servers = ", ".join(server.server_name or server.id for server in info.servers) or "none"
    what = one_line(f"{target.sandbox_id} is {info.status or 'there'}; its servers: {servers}")
    if info.status == "error":
        return Finding("sandbox", Grade.WARN, what, "syncd push --force; if it stays so, set sandbox.id to another one")
    return Finding("sandbox", Grade.PASS, what)


def _remedy(status: int | None) -> str:
    if status is None:
        return "look at the network and sandbox.base_url, then run `syncd check` again"
    return "nothing to do here: it may pass, so run `syncd check` again later"


def way_findings(base_url: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The proxy and the certificates on the way to the API, where the environment names any."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if is_loopback(host):
        return
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        yield Finding("proxy", Grade.NOTE, f"requests go through {_without_password(proxy)}")
    for name, is_there in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        path = environ.get(name)
        if path and is_there(path):
            yield Finding("certificates", Grade.NOTE, f"those of {path} are trusted (${name})")
        elif path:
            yield Finding(
                "certificates", Grade.WARN, f"${name} names {path}, which is not there", f"correct or unset {name}"
            )


def _without_password(proxy: str) -> str:
    parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return one_line(parts.netloc.rpartition("@")[2] or "a proxy that cannot be made out")
