"""`syncd check`: tests what a sync needs, check by check of `CHECKS`, and says how to fix what fails. Changes nothing.

The API is sent one request, which changes nothing: `GET …/{id}`, or the list if a sandbox is still to be acquired.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from enum import Enum

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.cli.ls import scan_workspace
from syncd.cli.options import CLOCK, config_option, configured, json_option
from syncd.cli.output import Tone, styled, text_width, wrapped
from syncd.cli.status import StatusReader
from syncd.core.api_key import ApiKey
from syncd.core.errors import ExitCode, NeedsPerson, SandboxNotFound, SyncdError, SyncWarning
from syncd.core.settings import MAIN, Config, table_of
from syncd.core.signals import Interrupt
from syncd.core.text import counted, duration, one_line, redacted, shown_path, size
from syncd.core.waiter import Waiter
from syncd.daemon.build import key_of, places_of, selection_of, target_of
from syncd.daemon.shared_sandbox import refuse_named
from syncd.model.manifest import Manifest
from syncd.remote.api import Account, Api, SandboxInfo
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.http_client import HttpClient, proxy_for, proxy_parts
from syncd.remote.target import AcquiredSandbox, Target
from syncd.sandbox.provider import acquired_of
from syncd.scan.exclusions import check_size
from syncd.watch.inotify_watch import InotifyWatch, watch_limit

_INDENT = 21  # columns of the grade and the subject
_MAX_COLUMNS = 120
_MAX_LENGTH = 1000
_UNWRAPPED = 1_000_000  # a line each in a pipe, for grep
_LEAST_SPACE_BYTES = 1 << 20  # for the status, the history and a socket
_AROUND_A_KEY = re.compile(r"""^['"`]|['"`]$|^[A-Z_]+=""")
_SHOWN_WARNINGS = 5
_WATCHES_SHARE = 0.75  # other programs of the same user, editors above all, need watches too
# Signed URLs live for half an hour: a skew below a minute does not matter, neither to them nor in logs.
_SKEW_S = 60.0


class Grade(Enum):
    """The word that a finding is shown with, the exit code that it causes, and the role of its word."""

    PASS = ("pass", ExitCode.DONE, Tone.GOOD)
    NOTE = ("note", ExitCode.DONE, Tone.BUSY)  # neither good nor bad
    WARN = ("warn", ExitCode.DONE, Tone.ATTENTION)  # syncing works, but not as well as it could
    FAIL_FOR_NOW = ("fail", ExitCode.TRY_LATER, Tone.BAD)
    FAIL = ("fail", ExitCode.NEEDS_PERSON, Tone.BAD)

    def __init__(self, word: str, exit_code: ExitCode, tone: Tone) -> None:
        self.word = word
        self.exit_code = exit_code
        self.tone = tone


class Finding(Struct, frozen=True):
    """`what` was found, and `remedy`, what to do about it; an empty one is the check's own, if it is needed."""

    grade: Grade
    what: str
    remedy: str = ""
    subject: str = ""


class Checkup(Struct):
    """One configuration under test, and what its checks find out for those after them: None is not known."""

    config: Config
    key: ApiKey | None = None
    manifest: Manifest | None = None
    unwatched: Sequence[SyncWarning] = ()
    found: SandboxInfo | int | StepFailed | None = None  # the API's answer; a number of sandboxes
    skew_s: float | None = None

    @property
    def target(self) -> Target:
        """The sandbox; its id is empty if one is still to be acquired."""
        with suppress(SyncdError):
            return target_of(self.config, os.environ)
        return Target(self.config.sandbox.base_url, "", self.config.sandbox.region)


@click.command("check")
@config_option
@json_option
def command(config_file: str | None, as_json: bool) -> int:
    """Test everything that a sync needs, and say how to fix what fails.

    \b
    syncd check --config site    of ~/.config/syncd/site.toml

    Nothing of yours is sent, nothing is changed. Ends with 0 if nothing failed, 75 if only the network or Klavis did,
    else 78.
    """
    found = []
    for finding in findings(config_file):
        found.append(finding)
        if not as_json:
            click.echo("\n".join(_lines(finding)))
    code = max(each.grade.exit_code for each in found)
    if as_json:
        rows = [{"subject": it.subject, "grade": it.grade.word, "what": it.what, "remedy": it.remedy} for it in found]
        click.echo(json.dumps({"version": 1, "exit_code": code, "findings": rows}))
    else:
        words = [each.grade.word for each in found]
        failures, warnings, passed = words.count("fail"), words.count("warn"), words.count("pass")
        parts = [f"{failures} failed"] if failures else []
        parts += [counted(warnings, "warning")] if warnings else []
        click.echo(", ".join([*parts, f"{passed} passed"]) if parts else f"all checks passed ({passed})")
    return code


def _lines(finding: Finding) -> list[str]:
    """The lines of a finding: wrapped to the width of a terminal; one line each in a pipe."""
    width = text_width(sys.stdout, _MAX_COLUMNS) if sys.stdout.isatty() else _UNWRAPPED
    rows = [(f"{styled(finding.grade.word, finding.grade.tone)}  {finding.subject:15}", finding.what)]
    rows += [(f"{'to do:':>19}  ", finding.remedy)] if finding.remedy else []
    return [line for label, text in rows for line in wrapped(text, width, label, _INDENT)]


def findings(config_file: str | None) -> Iterator[Finding]:
    """Yield each finding, to be printed, as soon as it is known: the first ones before the network answers."""
    try:
        config = configured(config_file)
        selection_of(config, os.environ)
    except SyncdError as failure:
        yield _printable(replace(failed(failure), subject="configuration"), "")
        return
    secret = ""
    for name in config.sandboxes:
        checkup, before = Checkup(config.for_sandbox(name)), "" if name == MAIN else f"{name}: "
        for finding in run(checkup, CHECKS if name == MAIN else _OF_FURTHER):
            secret = checkup.key.reveal() if checkup.key else secret
            if name == MAIN or finding.subject == "sandbox" or finding.grade is not Grade.PASS:
                yield _printable(replace(finding, what=f"{before}{finding.what}"), secret)


def _printable(finding: Finding, secret: str) -> Finding:
    """The finding without the secret and without what a terminal obeys, and not too long."""
    texts = (shown_path(redacted(text, secret)) for text in (finding.what, finding.remedy))
    what, remedy = (text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 1]}…" for text in texts)
    return replace(finding, what=what, remedy=remedy)


def run(checkup: Checkup, checks: Sequence[Check]) -> Iterator[Finding]:
    """Run these checks; one that fails stops only those that need what it finds out."""
    for subject, check, remedy in checks:
        try:
            for finding in check(checkup):
                is_well = finding.grade in (Grade.PASS, Grade.NOTE)
                yield replace(finding, subject=subject, remedy=finding.remedy or ("" if is_well else remedy))
        except SyncdError as failure:
            found = failed(failure)
            yield replace(found, subject=subject, remedy=found.remedy or remedy)


def failed(failure: SyncdError) -> Finding:
    """The finding about an error, which may end by itself or not."""
    grade = Grade.FAIL if failure.exit_code == ExitCode.NEEDS_PERSON else Grade.FAIL_FOR_NOW
    return Finding(grade, failure.message, failure.hint)


# -- the checks, in the order in which they run


def check_configuration(it: Checkup) -> Iterator[Finding]:
    """The file, and that no other configuration has its sandbox."""
    refuse_named(it.config, os.environ)
    yield Finding(Grade.PASS, it.config.file)
    yield from _rights_of_others(it.config.file, "other users can change the address that gets the key")


def check_key(it: Checkup) -> Iterator[Finding]:
    """The place of the key, and what is around it there."""
    it.key = key = key_of(it.config, os.environ)
    where = f"found in {key.source}"
    if not key.source.startswith("$"):
        where += f" (mode {stat.S_IMODE(os.stat(key.source).st_mode):04o})"
    if _AROUND_A_KEY.search(key.reveal()):
        yield Finding(Grade.WARN, f"{where}: quotes, or a variable's name and =, are around it")
    else:
        yield Finding(Grade.PASS, where)
    if not key.source.startswith("$"):
        yield from _rights_of_others(os.path.dirname(key.source), "other users can replace the key")


def check_directory(it: Checkup) -> Iterator[Finding]:
    """Scan the workspace, and try to watch it, but where a daemon does: its watches count against the same limit."""
    runs = StatusReader(it.config.file, it.config).status().running
    with closing(InotifyWatch(it.config.workspace.path, CLOCK)) as watch:
        if not runs:
            watch.open()
        found, _ = scan_workspace(it.config, None if runs else watch)
        it.unwatched = watch.warnings()
    it.manifest = manifest = found.manifest
    check_size(manifest, it.config.sync.max_snapshot_mib)
    files, folders = manifest.files, _directories(manifest)
    what = f"{counted(files, 'file')} in {folders:,} director{'y' if folders == 1 else 'ies'}"
    what += f", {size(manifest.content_bytes)}, of {it.config.sync.max_snapshot_mib:,} MiB allowed"
    yield Finding(Grade.PASS, what) if files else Finding(Grade.WARN, f"{what}: nothing to send")
    yield from _warnings(found.warnings)


def check_inotify(it: Checkup) -> Iterator[Finding]:
    """Compare one watch for each directory with this user's limit."""
    if it.manifest is None:
        return
    directories, (watches, remedy) = _directories(it.manifest), watch_limit()
    what = f"{counted(directories, 'folder')} to watch" + ("" if watches is None else f", of {watches:,} allowed")
    if it.unwatched:
        yield from _warnings(it.unwatched)
    elif watches is not None and directories > _WATCHES_SHARE * watches:
        yield Finding(Grade.WARN, f"{what}: this user's other programs need some too", remedy)
    else:
        yield Finding(Grade.PASS, what)


def check_folders(it: Checkup) -> Iterator[Finding]:
    """The folders of state and spool are there or can be made, can be written, and have space. None is made."""
    places = places_of(it.config, os.environ)
    for folder in (places.state, places.spool):
        existing = folder
        while not os.path.lexists(existing):
            existing = os.path.dirname(existing)
        if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
            raise NeedsPerson(
                f"{folder} cannot be written ({existing} is no writable folder)",
                "make it writable, or set XDG_STATE_HOME or XDG_CACHE_HOME to another folder",
            )
        disk = os.statvfs(existing)
        free_bytes = disk.f_bavail * disk.f_frsize
        is_enough = free_bytes >= _LEAST_SPACE_BYTES
        yield Finding(Grade.PASS if is_enough else Grade.FAIL, f"{folder} has {size(free_bytes)} free")


def _directories(manifest: Manifest) -> int:
    return 1 + len(manifest) - manifest.files  # the workspace among them


def check_api(it: Checkup) -> Iterator[Finding]:
    """Send one request, without retries, so that a person at the terminal sees the first failure as it is."""
    if it.key is None:
        yield Finding(Grade.NOTE, "not tested, as there is no key")
        return
    target, client = it.target, HttpClient(Waiter(Interrupt(), CLOCK))
    own = Api(target, it.key, client, table_of(it.config.sandbox_name)) if target.sandbox_id else None
    api = own or Account(target.base_url, it.key, client)
    try:
        it.found = api.sandbox() if isinstance(api, Api) else len(api.sandboxes())
    except StepFailed as failure:
        it.found = failure
    finally:
        client.drop()
    it.skew_s = api.skew_s()
    where = target.base_url
    with suppress(ValueError):  # none, or no valid one, which the request's failure says
        where += f" through {one_line(proxy_parts(proxy_for(target.base_url))[2])}"
    if isinstance(it.found, StepFailed) and it.found.action is not FailureAction.REFUSED:
        answered = it.found.action is not FailureAction.OFFLINE
        remedy = it.found.hint or ("nothing to do here: run `syncd check` again later" if answered else "")
        yield Finding(Grade.FAIL_FOR_NOW, f"{where}: {it.found.message}", remedy)
    else:
        yield Finding(Grade.PASS, f"{where} answers")


def check_sandbox(it: Checkup) -> Iterator[Finding]:
    """Tell what the API answered about the sandbox."""
    acquired: AcquiredSandbox | None = None
    with suppress(SyncdError):  # reported about the state folder
        acquired = acquired_of(it.config, places_of(it.config, os.environ).state)
    found, name = it.found, one_line(it.target.sandbox_id)
    if isinstance(found, StepFailed) and acquired is not None and found.refusal is SandboxNotFound:
        yield Finding(Grade.NOTE, f"{name} is gone: the next sync acquires another")
    elif isinstance(found, StepFailed):
        if found.action is FailureAction.REFUSED:
            raise found.as_error()
    elif isinstance(found, int):
        yield Finding(Grade.NOTE, f"none yet: the first sync acquires one (the account has {found:,})")
    elif found is not None:
        servers = ", ".join(server.name for server in found.servers) or "none"
        state = f" (state: {found.status})" if found.status else ""
        what = one_line(f"{name} is there{state}; its servers: {servers}")
        if acquired is not None and acquired.ends_wall_s is not None:
            what += f"; {duration(acquired.ends_wall_s - CLOCK.wall_s())} more, and the next one is acquired in time"
        yield Finding(Grade.WARN if found.status == "error" else Grade.PASS, what)


def check_clock(it: Checkup) -> Iterator[Finding]:
    """Compare this machine's wall clock with the server's."""
    if it.skew_s is None:
        yield Finding(Grade.NOTE, "not compared: no answer had Klavis' time")
        return
    if abs(it.skew_s) >= _SKEW_S:
        off = f"{abs(it.skew_s):,.0f} s {'ahead of' if it.skew_s > 0 else 'behind'} Klavis'"
        yield Finding(Grade.WARN, f"{off}; syncing corrects for it, but times in logs and status are wrong")
    else:
        yield Finding(Grade.PASS, "agrees with Klavis'")


def _rights_of_others(path: str, harm: str) -> Iterator[Finding]:
    """A warning about a file or folder that others may write to; the sticky bit protects what is in a folder."""
    with suppress(OSError):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & 0o022 and not mode & stat.S_ISVTX:
            yield Finding(Grade.WARN, f"{path} (mode {mode:04o}): {harm}", f"chmod go-w {shlex.quote(path)}")


def _warnings(warnings: Sequence[SyncWarning]) -> Iterator[Finding]:
    for warning in warnings[:_SHOWN_WARNINGS]:
        yield Finding(Grade.WARN, warning.what, warning.remedy)
    if len(warnings) > _SHOWN_WARNINGS:
        what = f"{len(warnings) - _SHOWN_WARNINGS:,} more such"
        yield Finding(Grade.WARN, what, "`syncd status` lists all once it runs")


Check = tuple[str, Callable[[Checkup], Iterator[Finding]], str]
# The subject, the check, and what to do if it warns or fails and names nothing better.
CHECKS: tuple[Check, ...] = (
    ("configuration", check_configuration, "`syncd config edit` opens it"),
    ("key", check_key, "leave nothing there but the key itself"),
    ("directory", check_directory, "run `syncd ls --excluded`, or correct workspace.path with `syncd config edit`"),
    ("inotify", check_inotify, "raise the limit"),
    ("folders", check_folders, "free some disk space, or set XDG_STATE_HOME or XDG_CACHE_HOME to a larger disk"),
    ("api", check_api, "check the network, its proxy and sandbox.base_url, then run `syncd check` again"),
    (
        "sandbox",
        check_sandbox,
        "`syncd push --force`; if it stays so, set sandbox.id to another one with `syncd config edit`",
    ),
    ("clock", check_clock, "`sudo timedatectl set-ntp true` sets the clock"),
)
# Of one more sandbox; the rest is the same for all.
_OF_FURTHER = tuple(check for check in CHECKS if check[0] in ("key", "api", "sandbox"))
