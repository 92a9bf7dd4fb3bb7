"""The checks of `syncd check`, in the order of their dependencies."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from syncd import __version__
from syncd.cli.check.api_check import SandboxEnd, check_api, route_findings
from syncd.cli.check.finding import Finding, Grade
from syncd.cli.check.look_check import check_look
from syncd.cli.check.service_check import service_findings
from syncd.cli.check.thresholds import judge_key, judge_private, judge_versions
from syncd.cli.check.workspace_check import WorkspaceCheck, check_workspace, folder_findings
from syncd.cli.options import CLOCK, config_path, configured
from syncd.cli.status.reader import StatusReader
from syncd.core.api_key import KEY_VARIABLE, ApiKey, find_key
from syncd.core.errors import ConfigError, SyncdError
from syncd.core.hardening import make_undumpable
from syncd.core.settings import Config
from syncd.daemon.build import excludes_for, places_of, reader_of, selection_of, size_remedy_of
from syncd.daemon.shared_sandbox import refuse_named
from syncd.remote.target import Target
from syncd.sandbox.provider import AcquiredSandboxStore
from syncd.sync.status_document import State, Status

_WRITABLE_BY_OTHERS = 0o022


class Checks:
    """Runs the checks; a failed one stops only those that depend on it. Its attributes are for the report.

    `config`, `status` and `checked` are None until they are known; `secret` is the API key, to be redacted in output.
    """

    def __init__(self, config_file: str | None) -> None:
        self.config_file = config_path(config_file)
        self.config: Config | None = None
        self.status: Status | None = None
        self.checked: WorkspaceCheck | None = None
        self.secret = ""
        self._option = config_file

    def findings(self) -> Iterator[Finding]:
        """Yield each finding as soon as it is known, so that the first are shown before the network answers."""
        try:
            self.config = config = configured(self._option)
            selection_of(config, os.environ)
        except SyncdError as failure:
            yield _failed("configuration", failure)
            return
        yield Finding("configuration", Grade.PASS, self.config_file)
        yield from _managed(config)
        try:
            refuse_named(config, os.environ)
        except ConfigError as failure:
            yield _failed("sandbox", failure)
        yield from _if_any(
            _writable("configuration", self.config_file, "other users can change the address that gets the key")
        )
        key = None
        make_undumpable()
        try:
            key = find_key(os.environ, config.sandbox.api_key_file)
            self.secret = key.reveal()
            yield from _key(key, config.sandbox.api_key_file)
        except SyncdError as failure:
            yield _failed("key", failure)
        yield from self._local(config)
        yield from service_findings(self._option, config)
        yield from route_findings(config.sandbox.base_url, os.environ)
        if key is not None:
            target, lifetime = _target(config)
            is_there = yield from check_api(target, lifetime, key=key, clock=CLOCK)
            if is_there:
                yield check_look(target, config.sandbox.agent_changes, key=key, clock=CLOCK)
        else:
            yield Finding("api", Grade.NOTE, "not tested, as there is no key")

    def _local(self, config: Config) -> Iterator[Finding]:
        self.status = status = StatusReader(self.config_file, config).status()
        self.checked = check_workspace(
            config.workspace.path,
            selection_of(config, os.environ),
            config.sync.max_snapshot_mib,
            status.pid,
            reader=None if config.workspace.upload_secrets else reader_of(config, CLOCK, os.environ),
            personal_excludes=excludes_for(config, os.environ),
            too_large=size_remedy_of(config),
        )
        yield from self.checked.findings
        if config.workspace.upload_secrets:
            yield Finding("secrets", Grade.WARN, "sent like other files, as workspace.upload_secrets is true")
        try:
            places = places_of(config, os.environ)
            yield from folder_findings(places.state, places.spool, self.checked.content_bytes)
        except SyncdError as failure:
            yield _failed("state", failure)
        yield from _daemon(status)


def _managed(config: Config) -> Iterator[Finding]:
    """The part of this machine's administrator."""
    managed = config.managed
    if managed is None:
        return
    if managed.narrowed:
        remedy = f"take {' and '.join(managed.narrowed)} out of {config.file}, or ask this machine's administrator"
        yield Finding("managed", Grade.NOTE, managed.summary(), remedy)
    else:
        yield Finding("managed", Grade.PASS, managed.summary())


def _daemon(status: Status) -> Iterator[Finding]:
    if not status.running:
        yield Finding("daemon", Grade.NOTE, "not running; `syncd run` starts it")
        return
    what = f"running as process {status.pid}, {status.state}"
    failures = [status.last_error.message] if status.last_error else []
    failures += status.warnings
    if status.responding is False:
        yield Finding("daemon", Grade.WARN, f"process {status.pid} does not answer", "run `syncd status`")
    elif failures or status.state is State.HELD:
        yield Finding("daemon", Grade.WARN, "; ".join([what, *failures[:1]]), "run `syncd status` to see everything")
    else:
        yield Finding("daemon", Grade.PASS, what)
    yield from _if_any(judge_versions(status.daemon_version, __version__))


def _target(config: Config) -> tuple[Target, SandboxEnd | None]:
    """The current target; without a sandbox's id before the next sandbox is acquired."""
    sandbox = config.sandbox
    if sandbox.id is not None:
        return Target(sandbox.base_url, sandbox.id, sandbox.region), None
    acquired_sandbox = None
    with suppress(SyncdError):  # reported about the state folder
        acquired_sandbox, _ = AcquiredSandboxStore(places_of(config, os.environ).state, sandbox.base_url).load()
    if acquired_sandbox is None or (
        acquired_sandbox.ends_wall_s is not None and acquired_sandbox.ends_wall_s <= CLOCK.wall_s()
    ):
        return Target(sandbox.base_url, "", sandbox.region), None
    return Target(sandbox.base_url, acquired_sandbox.sandbox_id, sandbox.region), SandboxEnd(
        acquired_sandbox.ends_wall_s
    )


def _key(key: ApiKey, key_file: str) -> Iterator[Finding]:
    yield judge_key(key.reveal(), _locations(key))
    if key.source.startswith("$"):
        with suppress(SyncdError):
            if find_key({}, key_file) != key:
                what = f"{key_file} holds another key, which the service uses"
                yield Finding(
                    "key", Grade.NOTE, what, f"if the key in ${KEY_VARIABLE} is the right one, put it into the file"
                )
        return
    with suppress(OSError):
        owner = os.stat(key.source).st_uid
        if owner not in (os.geteuid(), 0):
            what = f"{key.source} belongs to another user ({owner})"
            yield Finding("key", Grade.WARN, what, "copy the file, so that it belongs to you, and remove the old one")
    yield from _if_any(_writable("key", os.path.dirname(key.source), "other users can replace the key"))


def _writable(subject: str, path: str, harm: str) -> Finding | None:
    """A warning about a file or folder that others may write to; one with the sticky bit protects its entries."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return None
    return judge_private(subject, path, stat.S_IMODE(mode), forbidden=_WRITABLE_BY_OTHERS, harm=harm)


def _if_any(finding: Finding | None) -> Iterator[Finding]:
    if finding is not None:
        yield finding


def _locations(key: ApiKey) -> str:
    if key.source.startswith("$"):
        return f"found in {key.source}"
    return f"found in {key.source} (mode {stat.S_IMODE(os.stat(key.source).st_mode):04o})"


def _failed(subject: str, failure: SyncdError) -> Finding:
    grade = Grade.FAIL if failure.exit_code == Grade.FAIL.exit_code else Grade.FAIL_FOR_NOW
    return Finding(subject, grade, failure.message, failure.hint)
