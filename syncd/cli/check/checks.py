"""The checks of `syncd check`, in the order in which one needs the other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from syncd import __version__
from syncd.cli.check.api_check import SandboxEnd, check_api, route_findings
from syncd.cli.check.finding import Finding, Grade
from syncd.cli.check.service_check import service_findings
from syncd.cli.check.thresholds import judge_key, judge_private, judge_versions
from syncd.cli.check.workspace_check import WorkspaceCheck, check_workspace, folder_findings
from syncd.cli.options import CLOCK, config_path, configured
from syncd.cli.status.command import status_of
from syncd.cli.status.inquiry import Inquiry
from syncd.core.api_key import KEY_VARIABLE, ApiKey, find_key
from syncd.core.directories import directories_for
from syncd.core.errors import SyncdError
from syncd.core.hardening import make_undumpable
from syncd.core.settings import Config
from syncd.daemon.build import excludes_for, places_of, reader_of, selection_of
from syncd.remote.target import Target
from syncd.sandbox.provider import AcquiredSandboxStore
from syncd.sync.status_document import State, Status

_WRITABLE_BY_OTHERS = 0o022


class Checks:
    """One that failed ends only those that build on it. What was learned on the way stays, for the report.

    `config`, `status` and `checked` are None as long as nothing is known; `secret` is the key, for whoever prints.
    """

    def __init__(self, config_file: str | None) -> None:
        self.config_file = config_path(config_file)
        self.config: Config | None = None
        self.status: Status | None = None
        self.checked: WorkspaceCheck | None = None
        self.secret = ""
        self._option = config_file

    def findings(self) -> Iterator[Finding]:
        """One at a time, so that what is known is on the screen while the network is waited for."""
        try:
            self.config = config = configured(self._option)
            selection_of(config)
        except SyncdError as failure:
            yield _failed("configuration", failure)
            return
        yield Finding("configuration", Grade.PASS, self.config_file)
        yield from _if_any(
            _loose("configuration", self.config_file, "others can change it, and thereby where the key goes")
        )
        key = None
        make_undumpable()
        try:
            key = find_key(os.environ, config.sandbox.api_key_file)
            self.secret = key.reveal()
            yield from _key(key, config.sandbox.api_key_file)
        except SyncdError as failure:
            yield _failed("key", failure)
        yield from self._at_home(config)
        yield from service_findings(self._option, config)
        yield from route_findings(config.sandbox.base_url, os.environ)
        if key is not None:
            yield from check_api(*_target(config), key=key, clock=CLOCK)
        else:
            yield Finding("api", Grade.NOTE, "not asked, as there is no key")

    def _at_home(self, config: Config) -> Iterator[Finding]:
        folder = directories_for(config.workspace.path, os.environ).state
        self.status = status = Inquiry(folder, status_of(config, folder), self.config_file, CLOCK).status()
        self.checked = check_workspace(
            config.workspace.path,
            selection_of(config),
            config.sync.max_snapshot_mib,
            status.pid,
            reader=None if config.workspace.upload_secrets else reader_of(config, CLOCK, os.environ),
            personal_excludes=excludes_for(config, os.environ),
        )
        yield from self.checked.findings
        if config.workspace.upload_secrets:
            yield Finding("secrets", Grade.WARN, "sent like all else, as workspace.upload_secrets is true")
        try:
            places = places_of(config, os.environ)
            yield from folder_findings(places.state, places.spool, self.checked.content_bytes)
        except SyncdError as failure:
            yield _failed("state", failure)
        yield from _daemon(status)


def _daemon(status: Status) -> Iterator[Finding]:
    if not status.running:
        yield Finding("daemon", Grade.NOTE, "not running; `syncd run` starts it")
        return
    what = f"running as process {status.pid}, {status.state}"
    failures = [status.last_error.message] if status.last_error else []
    failures += status.warnings
    if status.responding is False:
        yield Finding("daemon", Grade.WARN, f"process {status.pid} does not answer", "see `syncd status`")
    elif failures or status.state is State.HELD:
        yield Finding("daemon", Grade.WARN, "; ".join([what, *failures[:1]]), "see all with `syncd status`")
    else:
        yield Finding("daemon", Grade.PASS, what)
    yield from _if_any(judge_versions(status.daemon_version, __version__))


def _target(config: Config) -> tuple[Target, SandboxEnd | None]:
    """Where it goes now; no sandbox's id where the next one has yet to be acquired."""
    sandbox = config.sandbox
    if sandbox.id is not None:
        return Target(sandbox.base_url, sandbox.id, sandbox.region), None
    acquired_sandbox = None
    with suppress(SyncdError):  # told of as the state folder's
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
                what = f"{key_file} holds another one, which the service uses"
                yield Finding("key", Grade.NOTE, what, f"if ${KEY_VARIABLE} is the right one, put it into the file")
        return
    with suppress(OSError):
        owner = os.stat(key.source).st_uid
        if owner not in (os.geteuid(), 0):
            what = f"{key.source} belongs to another user ({owner})"
            yield Finding("key", Grade.WARN, what, "let it belong to you: copy it, and remove the old one")
    yield from _if_any(_loose("key", os.path.dirname(key.source), "others can put another key in its place"))


def _loose(subject: str, path: str, harm: str) -> Finding | None:
    """A file or folder that others may write to, but for a folder in which they cannot touch what is not theirs."""
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
