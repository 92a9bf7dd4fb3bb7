"""Checks the way to the sandbox: the route, one request that the API answers, and a look in the sandbox.

The request is `GET …/{id}`, which changes nothing there, or the list of sandboxes if one is still to be acquired.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from syncd.cli.check.command import Finding, Grade
from syncd.cli.options import CLOCK
from syncd.core.api_key import ApiKey
from syncd.core.choices import AgentChanges
from syncd.core.errors import SandboxNotFound, SyncdError
from syncd.core.settings import Config, is_loopback
from syncd.core.text import duration, one_line
from syncd.core.waiter import Interrupt, Waiter
from syncd.daemon.build import places_of
from syncd.remote.api import Account, Api, SandboxInfo
from syncd.remote.bucket import Dump
from syncd.remote.failure import ApiStep, FailureAction, RetrySettings, StepFailed
from syncd.remote.http_client import HttpClient, Response
from syncd.remote.remote_job import JobRunner, Purpose
from syncd.remote.target import AcquiredSandbox, Target
from syncd.sandbox.look import Looker
from syncd.sandbox.look_by_dump import DumpLooker
from syncd.sandbox.look_request import LookRequest
from syncd.sandbox.provider import acquired_sandbox_store
from syncd.sandbox.remote_changes import LOOK_S
from syncd.store.state_db import StateDb

# By the words of `remote.http_client`: certificate failures that a person can correct on this machine.
_CERTIFICATE_REMEDIES = {
    "not valid yet": "set the clock: sudo timedatectl set-ntp true",
    "is for another host": "correct sandbox.base_url, or sign in to this network",
    "certificate is not trusted": (
        "if your company's proxy inspects TLS, name its root certificate in SSL_CERT_FILE, or add it to the system's"
    ),
}
# Signed URLs live for half an hour: a skew below a minute does not matter, neither to them nor in logs.
_SKEW_S = 60.0
_NO_RETRIES = RetrySettings(1.0, 1.0, 0.0)
_LONGEST_REASON = 120
_LOOK = Purpose(ApiStep.EXECUTION, "a look")


def check_route(base_url: str) -> Iterator[Finding]:
    """The proxy and the certificates that the environment names for the API."""
    components = urlsplit(base_url)
    if is_loopback(components.hostname or ""):
        return
    if proxy := _proxy(base_url):
        yield Finding("proxy", Grade.NOTE, f"requests go through {proxy}")
    if components.scheme != "https":
        return
    file = os.environ.get("SSL_CERT_FILE")
    if not file:
        yield Finding("certificates", Grade.PASS, "those of the system are trusted")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        yield Finding("certificates", Grade.NOTE, f"those of {file} are trusted ($SSL_CERT_FILE)")
    except (OSError, ValueError):  # an SSLError is an OSError
        what = f"$SSL_CERT_FILE names {file}, from which no certificate can be read"
        yield Finding("certificates", Grade.WARN, what, "correct or unset SSL_CERT_FILE")


def _proxy(base_url: str) -> str:
    """The proxy that the environment names for this address, without its password; "" if none."""
    components = urlsplit(base_url)
    host = components.hostname or ""
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(components.scheme) or proxies.get("all") or ""
    if not proxy or is_loopback(host) or urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        return ""
    address = urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
    return one_line(address or "a proxy with an invalid address")


class _MeasuringClient(HttpClient):
    """Keeps the answer to the last request, a refusal as well, and the seconds that it took."""

    answer: Response | None = None
    seconds = 0.0

    def exchange(self, *arguments: Any, **options: Any) -> Response:
        started_s = CLOCK.monotonic_s()
        self.answer = super().exchange(*arguments, **options)
        self.seconds = CLOCK.monotonic_s() - started_s
        return self.answer


def check_api(config: Config, key: ApiKey) -> Generator[Finding, None, Target | None]:
    """Send one request, without retries, so that a person at the terminal sees the first failure as it is.

    Returns the sandbox if the API knows it.
    """
    base_url = config.sandbox.base_url
    acquired = None if config.sandbox.id else _acquired(config)
    sandbox_id = config.sandbox.id or (acquired.sandbox_id if acquired else "")
    target = Target(base_url, sandbox_id, config.sandbox.region)
    client = _MeasuringClient(Waiter(Interrupt(), CLOCK))
    found: SandboxInfo | int | StepFailed
    try:
        if sandbox_id:
            found = Api(target, key, client, CLOCK).sandbox()
        else:
            found = Account(base_url, key, client, CLOCK).count()
    except StepFailed as failure:
        found = failure
    finally:
        client.drop()
    wall_s = CLOCK.wall_s()
    is_gone = isinstance(found, StepFailed) and acquired is not None and found.refusal is SandboxNotFound
    if not isinstance(found, StepFailed) or is_gone or found.action is FailureAction.REFUSED:
        yield Finding("api", Grade.PASS, f"{base_url} answered in {client.seconds:.2f} s")
    if is_gone:
        yield Finding("sandbox", Grade.NOTE, f"{one_line(sandbox_id)} is gone: the next sync acquires another")
    elif isinstance(found, StepFailed):
        yield failure_finding(base_url, found, answered=client.answer is not None)
    elif isinstance(found, int):
        yield Finding("sandbox", Grade.NOTE, f"none yet: the first sync acquires one (the account has {found:,})")
    else:
        yield _sandbox_finding(sandbox_id, found, acquired)
    server_wall_s = client.answer.server_wall_s if client.answer else None
    yield clock_finding(None if server_wall_s is None else wall_s - server_wall_s)
    return target if isinstance(found, SandboxInfo) else None


def _acquired(config: Config) -> AcquiredSandbox | None:
    """The sandbox that syncd acquired and that has not ended yet."""
    with suppress(SyncdError):  # reported about the state folder
        acquired, _ = acquired_sandbox_store(config, places_of(config, os.environ).state).load()
        if acquired and (acquired.ends_wall_s is None or acquired.ends_wall_s > CLOCK.wall_s()):
            return acquired
    return None


def failure_finding(base_url: str, failure: StepFailed, *, answered: bool) -> Finding:
    """The finding about the one request's failure; `answered`: something at that address answered it."""
    if failure.action is FailureAction.REFUSED:
        return Finding("sandbox", Grade.FAIL, failure.message, failure.hint)
    what = f"{base_url}: {failure.message}"
    for words, remedy in _CERTIFICATE_REMEDIES.items():
        if words in failure.message:
            return Finding("certificate", Grade.FAIL, what, remedy)
    if answered:
        remedy = failure.hint or "nothing to do on this machine: run `syncd check` again later"
    else:
        proxy = _proxy(base_url)
        suspects = f"the network, the proxy {proxy}" if proxy else "the network"
        remedy = f"check {suspects} and sandbox.base_url, then run `syncd check` again"
    return Finding("api", Grade.FAIL_FOR_NOW, what, remedy)


def _sandbox_finding(sandbox_id: str, info: SandboxInfo, acquired: AcquiredSandbox | None) -> Finding:
    servers = ", ".join(server.server_name or server.id for server in info.servers) or "none"
    what = one_line(f"{sandbox_id} is {info.status or 'there'}; its servers: {servers}")
    if info.status == "error":
        return Finding("sandbox", Grade.WARN, what, "syncd push --force; if it stays so, set sandbox.id to another one")
    if acquired is not None and acquired.ends_wall_s is not None:
        what += f"; {duration(acquired.ends_wall_s - CLOCK.wall_s())} more, and the next one is acquired in time"
    return Finding("sandbox", Grade.PASS, what)


def clock_finding(skew_s: float | None) -> Finding:
    """This machine's wall clock minus the server's is `skew_s`; None: no answer had a date."""
    if skew_s is None:
        return Finding("clock", Grade.NOTE, "not compared: no answer had the server's time")
    off = f"{abs(skew_s):,.0f} s {'ahead of' if skew_s > 0 else 'behind'} the server's"
    if abs(skew_s) >= _SKEW_S:
        what = f"{off}; syncing corrects for it, but times in logs and status are wrong"
        return Finding("clock", Grade.WARN, what, "set the clock: sudo timedatectl set-ntp true")
    # The server's date has whole seconds, so less than two may be none.
    what = "agrees with the server's" if abs(skew_s) < 2 else f"{off}, which does no harm"
    return Finding("clock", Grade.PASS, what)


def check_look(target: Target, agent_changes: AgentChanges, key: ApiKey) -> Finding:
    """Look once as a sync does, by a program in the sandbox, and by its archive if that fails; each within `LOOK_S`.

    The look asks for nothing and only reads.
    """
    if agent_changes is AgentChanges.OVERWRITE:
        what = 'nobody looks for what the agent changed, as sandbox.agent_changes = "overwrite"'
        return Finding("looks", Grade.NOTE, what)
    waiter = Waiter(Interrupt(), CLOCK)
    client = HttpClient(waiter)
    api = Api(target, key, client, CLOCK)
    request = LookRequest({})
    with tempfile.TemporaryDirectory(prefix="syncd-check-") as folder:
        looker = Looker(JobRunner(api, client, waiter), StateDb(folder), target, waiter)
        dump_looker = DumpLooker(Dump(api, client, _NO_RETRIES, waiter))
        try:
            seconds, no_program = _timed(waiter, lambda: looker.look(request, folder, waiter.poll_events))
            if not no_program:
                what = f"a program in the sandbox looked for changes in {seconds:.2f} s"
                return Finding("looks", Grade.PASS, what)
            seconds, no_archive = _timed(waiter, lambda: dump_looker.look(request, folder, waiter.poll_events))
        finally:
            client.drop()
    if not no_archive:
        what = f"no program looks there ({no_program}), so each look takes the whole archive"
        return Finding("looks", Grade.NOTE, f"{what}, which took {seconds:.2f} s")
    what = f"neither a program ({no_program}) nor the sandbox's archive ({no_archive}) can look for changes"
    if agent_changes is AgentChanges.HOLD:
        remedy = 'run `syncd check` again later; if it stays so, set sandbox.agent_changes = "save" or "overwrite"'
        return Finding("looks", Grade.FAIL_FOR_NOW, f"{what}, so nothing is sent", remedy)
    what += ": a sync goes on without looking, and what the agent changed is overwritten unsaved"
    remedy = 'run `syncd check` again later; with sandbox.agent_changes = "hold" nothing is sent meanwhile'
    return Finding("looks", Grade.WARN, what, remedy)


def _timed(waiter: Waiter, look: Callable[[], object]) -> tuple[float, str]:
    """The seconds that a look took, which is ended in time, and its failure in words; "" if it worked."""
    began_s = CLOCK.monotonic_s()
    failure = ""
    try:
        with _LOOK.limited(waiter, LOOK_S):
            look()
    except StepFailed as failed:
        failure = one_line(failed.message, _LONGEST_REASON)
    return CLOCK.monotonic_s() - began_s, failure
