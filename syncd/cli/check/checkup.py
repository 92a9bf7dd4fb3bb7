"""The checks of `syncd check` in the order of their dependencies, and those of what a person set up here."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress

from syncd import __version__
from syncd.cli.check.finding import Finding, Grade, failed
from syncd.cli.check.sandbox_checks import check_api, check_look, check_route
from syncd.cli.check.workspace_check import check_workspace
from syncd.cli.options import config_path, configured
from syncd.cli.service.command import login_advice, route_advice, service_of
from syncd.cli.status.reader import StatusReader
from syncd.core.api_key import KEY_VARIABLE, ApiKey, find_key
from syncd.core.errors import ExitCode, SyncdError
from syncd.core.formatting import size
from syncd.core.hardening import make_undumpable
from syncd.core.settings import Config
from syncd.daemon.build import places_of, selection_of
from syncd.daemon.shared_sandbox import refuse_named
from syncd.scan.scanner import Scan
from syncd.sync.status_document import State, Status

# For the status, the history and a socket.
_LEAST_SPACE_BYTES = 1 << 20
_AROUND_A_KEY = re.compile(r"""^['"`]|['"`]$|^[A-Z_]+=""")


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
    now = service.report(properties, config.sandbox.api_key_file)
    name = service.unit.name
    if now.state == "not installed":
        yield Finding("service", Grade.NOTE, f"{name} is not installed", f"to start it at every login: {now.remedy}")
        return
    is_well = now.exit_code is ExitCode.DONE and not now.remedy
    what = "; ".join(filter(None, (f"{name}: {now.state}", now.last)))
    yield Finding("service", Grade.PASS if is_well else Grade.WARN, what, now.remedy)
    yield from (Finding("service", Grade.NOTE, *advice) for advice in login_advice(service.manager))
    yield from (Finding("service", Grade.WARN, *advice) for advice in route_advice(service, config, properties))


def _rights_of_others(subject: str, path: str, change: str, harm: str) -> Iterator[Finding]:
    """A warning about a file or folder with rights that `chmod CHANGE` takes away; the sticky bit protects entries."""
    with suppress(OSError):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & (0o022 if change == "go-w" else 0o077) and not mode & stat.S_ISVTX:
            what = f"{path} (mode {mode:04o}): {harm}"
            yield Finding(subject, Grade.WARN, what, f"chmod {change} {shlex.quote(path)}")
