"""The checks of `syncd check` in the order of their dependencies: of what a person set up here, then of the sandbox.

The API is sent one request, which changes nothing: `GET …/{id}`, or the list if a sandbox is still to be acquired.
"""

from __future__ import annotations

import os
import re
import shlex
import ssl
import stat
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from syncd import __version__
from syncd.cli.check import Finding, Grade, failed
from syncd.cli.local_scan import LocalScan, brought_in_text, scan_workspace
from syncd.cli.options import CLOCK, config_path, configured
from syncd.cli.service import login_advice, route_advice, service_of
from syncd.cli.status.reader import StatusReader
from syncd.core.api_key import KEY_VARIABLE, ApiKey, find_key
from syncd.core.choices import AgentChanges
from syncd.core.errors import SandboxNotFound, SyncdError, SyncWarning
from syncd.core.hardening import make_undumpable
from syncd.core.settings import MAIN, Config, is_loopback, table_of
from syncd.core.text import counted, duration, few, one_line, shown_path, size
from syncd.core.waiter import Interrupt, Waiter
from syncd.daemon.build import key_of, places_of, selection_of, size_remedy_of
from syncd.daemon.shared_sandbox import refuse_named
from syncd.model.entry import Entry, Kind, count_files
from syncd.model.manifest import Manifest
from syncd.remote.api import Account, Api, SandboxInfo
from syncd.remote.bucket import Dump
from syncd.remote.failure import ApiStep, FailureAction, RetrySettings, StepFailed
from syncd.remote.http_client import HttpClient, Response, proxy_parts
from syncd.remote.remote_job import JobRunner, Purpose
from syncd.remote.target import AcquiredSandbox, Target
from syncd.sandbox.look import Looker
from syncd.sandbox.look_by_dump import DumpLooker
from syncd.sandbox.look_request import LookRequest
from syncd.sandbox.provider import AcquiredSandboxStore
from syncd.sandbox.remote_changes import LOOK_S
from syncd.scan.exclusions import over_limit
from syncd.scan.scanner import Scan
from syncd.selection.selection import WORKTREEINCLUDE
from syncd.store.state_db import StateDb
from syncd.sync.status_document import State, Status
from syncd.watch.inotify_watch import InotifyWatch, instance_limit, watch_limit
from syncd.watch.mounts import shared_warning, workspace_mounts_of

# For the status, the history and a socket.
_LEAST_SPACE_BYTES = 1 << 20
_AROUND_A_KEY = re.compile(r"""^['"`]|['"`]$|^[A-Z_]+=""")
_SHOWN_WARNINGS = 5
_HEAVIEST = 10
# A folder is named as a whole unless one entry holds this share of it: then the entry is named.
_DOMINANT_SHARE = 0.5
# Entries with a smaller share of all bytes are not named.
_LEAST_SHARE = 0.01
# A snapshot this large will soon be over its limit.
_SIZE_SHARE = 0.8
# Other programs of the same user, editors above all, need watches too.
_WATCHES_SHARE = 0.75
_MIB = 1 << 20


class Checkup:
    """Runs the checks; a failed one stops only those that depend on it. Its attributes are for the report.

    `config`, `status` and `scan` are None until they are known; `secret` is the API key, to be redacted in output.
    """

    def __init__(self, config_file: str | None) -> None:
        self.config: Config | None = None
        self.status: Status | None = None
        self.scan: Scan | None = None
        self.secret = ""
        self._option = config_file
        self._path = config_path(config_file)

    def findings(self) -> Iterator[Finding]:
        """Yield each finding as soon as it is known, so that the first are shown before the network answers."""
        try:
            self.config = config = configured(self._option)
            selection_of(config, os.environ)
        except SyncdError as failure:
            yield failed("configuration", failure)
            return
        yield from check_configuration(config, self._path)
        make_undumpable()
        key = None
        try:
            key = find_key(os.environ, config.sandbox.api_key_file)
            self.secret = key.reveal()
            yield from check_key(key, config.sandbox.api_key_file)
        except SyncdError as failure:
            yield failed("key", failure)
        self.status = status = StatusReader(self._path, config).status()
        self.scan = yield from check_workspace(config, watches=not status.running)
        yield from check_folders(config, self.scan.manifest.content_bytes if self.scan else 0)
        yield check_daemon(status)
        yield from check_service(self._option, config)
        yield from check_route(config.sandbox.base_url)
        if key is None:
            yield Finding("api", Grade.NOTE, "not tested, as there is no key")
        elif (target := (yield from check_api(config, key))) is not None:
            yield check_look(target, config.sandbox.agent_changes, key)
        for name in config.sandboxes:
            if name != MAIN:
                yield from check_further(config.for_sandbox(name))


def check_further(config: Config) -> Iterator[Finding]:
    """The key and the sandbox of one more name; the rest is the same for all."""
    try:
        key = key_of(config, os.environ)
        found = [each for each in check_api(config, key) if each.subject != "clock"]
    except SyncdError as failure:
        found = [failed("key", failure)]
    for finding in found:
        if (finding.subject, finding.grade) != ("api", Grade.PASS):
            yield replace(finding, what=f"{config.sandbox_name}: {finding.what}")


def check_configuration(config: Config, path: str) -> Iterator[Finding]:
    """The part of this machine's administrator, and what conflicts with other configurations."""
    yield Finding("configuration", Grade.PASS, path)
    if (managed := config.managed) is not None:
        narrowed = " and ".join(managed.narrowed)
        remedy = f"take {narrowed} out of {config.file}, or ask this machine's administrator" if narrowed else ""
        yield Finding("managed", Grade.NOTE if narrowed else Grade.PASS, managed.summary(), remedy)
    try:
        refuse_named(config, os.environ)
    except SyncdError as failure:
        yield failed("sandbox", failure)
    yield from _rights_of_others("configuration", path, "go-w", "other users can change the address that gets the key")


def check_key(key: ApiKey, key_file: str) -> Iterator[Finding]:
    """The place of the key, and what is around it there; a service reads the file alone."""
    if key.source.startswith("$"):
        where = f"found in {key.source}"
    else:
        where = f"found in {key.source} (mode {stat.S_IMODE(os.stat(key.source).st_mode):04o})"
    if _AROUND_A_KEY.search(key.reveal()):
        what = f"{where}: quotes, or a variable's name and =, are around it"
        yield Finding("key", Grade.WARN, what, "leave nothing there but the key itself")
    else:
        yield Finding("key", Grade.PASS, where)
    if not key.source.startswith("$"):
        yield from _rights_of_others("key", os.path.dirname(key.source), "go-w", "other users can replace the key")
        return
    with suppress(SyncdError):
        if find_key({}, key_file) != key:
            what = f"{key_file} holds another key, which the service uses"
            remedy = f"if the key in ${KEY_VARIABLE} is the right one, put it into the file"
            yield Finding("key", Grade.NOTE, what, remedy)


def check_workspace(config: Config, *, watches: bool) -> Generator[Finding, None, Scan | None]:
    """Scan the workspace, and try to watch it if `watches`; the scan, None if the workspace cannot be read.

    Where a daemon watches already, more watches would count against the same limit.
    """
    path = config.workspace.path
    try:
        with closing(InotifyWatch(path, CLOCK)) as watch:
            if watches:
                watch.open()
            found = scan_workspace(config, watch if watches else None)
            unwatched = watch.warnings()
    except SyncdError as failure:
        yield failed("directory", failure)
        return None
    manifest = found.scan.manifest
    directories = 1 + sum(entry.kind is Kind.DIRECTORY for entry in manifest.values())  # the workspace among them
    yield _size_finding(config, manifest, directories)
    if manifest.content_bytes >= _MIB and (weights := heaviest(manifest, _HEAVIEST)):
        yield _heaviest_finding(weights, manifest.content_bytes)
    yield from _warnings("directory", found.scan.warnings)
    shared = workspace_mounts_of(path).shared.items()
    included = [shared_warning(place, kind) for place, kind in shared if not place or place in manifest]
    yield from _warnings("directory", included)
    if config.workspace.upload_secrets:
        yield Finding("secrets", Grade.WARN, "sent like other files, as workspace.upload_secrets is true")
    else:
        yield _secrets_finding(found)
    if found.brought_in:
        remedy = f"what must not be sent goes into .syncdignore, which is stronger than {WORKTREEINCLUDE}"
        yield Finding("included", Grade.NOTE, brought_in_text(found.brought_in), remedy)
    yield from _warnings("inotify", unwatched) if unwatched else [_watches_finding(directories)]
    return found.scan


def _size_finding(config: Config, manifest: Manifest, directories: int) -> Finding:
    files, total_bytes, max_mib = count_files(manifest.values()), manifest.content_bytes, config.sync.max_snapshot_mib
    if refusal := over_limit(manifest, max_mib):
        return Finding("directory", Grade.FAIL, refusal, size_remedy_of(config))
    folders = "1 directory" if directories == 1 else f"{directories:,} directories"
    what = f"{counted(files, 'file')} in {folders}, {size(total_bytes)}"
    if not files:
        remedy = "run `syncd ls --ignored`, or correct workspace.path"
        return Finding("directory", Grade.WARN, f"{what}: nothing to send", remedy)
    if total_bytes > _SIZE_SHARE * max_mib * _MIB:
        what += f": near the limit of {max_mib:,} MiB"
        return Finding("directory", Grade.WARN, what, size_remedy_of(config))
    return Finding("directory", Grade.PASS, f"{what}, of {max_mib:,} MiB allowed")


def _heaviest_finding(weights: Sequence[tuple[str, int]], total_bytes: int) -> Finding:
    """The largest files and folders, each as the line of an ignore file that leaves it out, but for odd characters."""
    details = tuple(
        f"{size_bytes / total_bytes:4.0%} {size(size_bytes):>11}  /{shown_path(path)}" for path, size_bytes in weights
    )
    share = sum(size_bytes for _, size_bytes in weights) / total_bytes
    what = f"{len(weights)} files or folders hold {share:.0%} of it"
    if len(weights) == 1:
        what = f"one {'folder' if weights[0][0].endswith('/') else 'file'} holds {share:.0%} of it"
    return Finding("largest", Grade.NOTE, what, "to exclude one, put its line into .syncdignore", details)


def heaviest(manifest: Mapping[str, Entry], count: int) -> list[tuple[str, int]]:
    """The largest files and folders with their bytes, none within another, the largest first; at most `count`.

    A folder, which ends with a slash, is replaced by its entries, at any depth, if one of them dominates it.
    """
    weights, largest_in = Counter[str](), Counter[str]()
    for path, entry in manifest.items():
        below = path if entry.size_bytes else ""
        while below:
            weights[below] += entry.size_bytes
            below = _folder_of(below)
    for path, size_bytes in weights.items():
        largest_in[_folder_of(path)] = max(size_bytes, largest_in[_folder_of(path)])
    least_bytes = _LEAST_SHARE * sum(entry.size_bytes for entry in manifest.values())
    found, whole = [], "/"  # no path begins so
    for path, size_bytes in sorted(weights.items()):
        if not path.startswith(whole) and largest_in[path] < _DOMINANT_SHARE * size_bytes:
            whole = path if path.endswith("/") else whole
            found.append((path, size_bytes))
    found.sort(key=lambda row: -row[1])
    return [row for row in found[:count] if row[1] >= least_bytes]


def _folder_of(path: str) -> str:
    return "".join(path.rstrip("/").rpartition("/")[:2])


def _secrets_finding(found: LocalScan) -> Finding:
    """The paths left out as secrets, each with its rule or line. Those found by content are a warning."""
    by_name = [f"{shown_path(path)}: named like {pattern}" for path, pattern in found.named_like_secrets]
    by_content = [f"{shown_path(path)} holds {secret}" for path, secret in found.secrets.items()]
    number = len(by_name) + len(by_content)
    if not number:
        return Finding("secrets", Grade.PASS, "none found")
    kinds = [f"{len(paths):,} {how}" for paths, how in ((by_content, "by content"), (by_name, "by name")) if paths]
    what = f"{counted(number, 'path')} excluded: {', '.join(kinds)}"
    remedy = "remove the secret, or allow the path in workspace.allow_secrets" if by_content else ""
    details = tuple(few((*by_content, *by_name), number, ": syncd ls --ignored"))
    return Finding("secrets", Grade.WARN if by_content else Grade.NOTE, what, remedy, details)


def _watches_finding(directories: int) -> Finding:
    """Compare one watch for each directory and one instance with this user's limits."""
    (watches, remedy), instances = watch_limit(), instance_limit()
    needed, one = (
        f"{number:,}" if allowed is None else f"{number:,} of {allowed:,}"
        for number, allowed in ((directories, watches), (1, instances))
    )
    what = f"{needed} watches and {one} instances needed"
    if watches is not None and directories > watches:
        return Finding("inotify", Grade.WARN, f"{what}: too many, the rest is polled", remedy)
    if watches is not None and directories > _WATCHES_SHARE * watches:
        return Finding("inotify", Grade.WARN, f"{what}; this user's other programs need some too", remedy)
    return Finding("inotify", Grade.PASS, what)


def _warnings(subject: str, warnings: Sequence[SyncWarning]) -> Iterator[Finding]:
    for warning in warnings[:_SHOWN_WARNINGS]:
        yield Finding(subject, Grade.WARN, warning.what, warning.remedy)
    more = len(warnings) - _SHOWN_WARNINGS
    if more > 0:
        yield Finding(subject, Grade.WARN, f"{more:,} more such", "`syncd status` lists all once it runs")


def check_folders(config: Config, content_bytes: int) -> Iterator[Finding]:
    """The daemon's folders: each is there or can be made, can be written, and has space. None is made.

    The size of the archive is not known in advance: of source code it is about a quarter of `content_bytes`.
    """
    try:
        places = places_of(config, os.environ)
    except SyncdError as failure:
        yield failed("state", failure)
        return
    rows = (("state", "XDG_STATE_HOME", places.state, 0), ("spool", "XDG_CACHE_HOME", places.spool, content_bytes))
    for subject, variable, folder, needed_bytes in rows:
        existing = folder
        while not os.path.lexists(existing):
            existing = os.path.dirname(existing)
        remedy = f"make it writable, or set {variable} to another folder"
        if not os.path.isdir(existing):
            what = f"{folder} cannot be created: {existing} is no folder"
            yield Finding(subject, Grade.FAIL, what, remedy)
            continue
        if not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
            what = f"{folder} cannot be written: {existing} is not writable"
            yield Finding(subject, Grade.FAIL, what, remedy)
            continue
        if existing == folder:
            yield from _rights_of_others(subject, folder, "go-rwx", "other users can read it")
        disk = os.statvfs(existing)
        free_bytes = disk.f_bavail * disk.f_frsize
        what = f"{folder} has {size(free_bytes)} free"
        remedy = f"free some disk space, or set {variable} to a larger disk"
        if free_bytes < _LEAST_SPACE_BYTES:
            yield Finding(subject, Grade.FAIL, what, remedy)
        elif free_bytes < needed_bytes:
            what += ", less than the workspace holds: its archive may not fit"
            yield Finding(subject, Grade.WARN, what, remedy)
        else:
            yield Finding(subject, Grade.PASS, what)


def check_daemon(status: Status) -> Finding:
    """The running daemon: it answers, nothing failed, and it has this version."""
    if not status.running:
        return Finding("daemon", Grade.NOTE, "not running; `syncd run` starts it")
    what = f"running as process {status.pid}, {status.state}"
    failures = [status.last_error.message] if status.last_error else []
    failures += status.warnings
    if status.responding is False:
        return Finding("daemon", Grade.WARN, f"process {status.pid} does not answer", "run `syncd status`")
    if failures or status.state is State.HELD:
        remedy = "run `syncd status` to see everything"
        return Finding("daemon", Grade.WARN, "; ".join([what, *failures[:1]]), remedy)
    if status.daemon_version not in (None, __version__):
        what += f"; it is version {status.daemon_version}, this command {__version__}"
        remedy = "restart it: systemctl --user restart syncd, or run `syncd run` anew"
        return Finding("daemon", Grade.WARN, what, remedy)
    return Finding("daemon", Grade.PASS, what)


def check_service(config_file: str | None, config: Config) -> Iterator[Finding]:
    """The systemd unit. A missing one is only a note, as other programs can start `syncd run`."""
    try:
        service = service_of(config_file)
        properties = service.properties()
    except SyncdError as failure:
        yield Finding("service", Grade.NOTE, failure.message)
        return
    name, state = service.unit.name, properties.get("ActiveState", "unknown")
    if properties.get("LoadState") == "not-found":
        remedy = f"to start it at every login: syncd service install{service.option}"
        yield Finding("service", Grade.NOTE, f"{name} is not installed", remedy)
        return
    if state == "active":
        yield Finding("service", Grade.PASS, f"{name} is active")
    else:
        yield Finding("service", Grade.WARN, f"{name} is {state}", f"syncd service status{service.option}")
    yield from (Finding("service", Grade.NOTE, *advice) for advice in login_advice(service))
    yield from (Finding("service", Grade.WARN, *advice) for advice in route_advice(service, config, properties))


def _rights_of_others(subject: str, path: str, change: str, harm: str) -> Iterator[Finding]:
    """A warning about a file or folder with rights that `chmod CHANGE` takes away; the sticky bit protects entries."""
    with suppress(OSError):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & (0o022 if change == "go-w" else 0o077) and not mode & stat.S_ISVTX:
            what = f"{path} (mode {mode:04o}): {harm}"
            yield Finding(subject, Grade.WARN, what, f"chmod {change} {shlex.quote(path)}")


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
    try:
        return one_line(proxy_parts(proxy)[2])
    except ValueError:
        return "a proxy with an invalid address"


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
            found = Api(target, key, client, CLOCK, table_of(config.sandbox_name)).sandbox()
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
        acquired, _ = AcquiredSandboxStore(config, places_of(config, os.environ).state).load()
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
    servers = ", ".join(server.name for server in info.servers) or "none"
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
