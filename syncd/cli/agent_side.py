"""The agent's side for a command: what differs in the sandbox, beside a running daemon or without one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from types import MappingProxyType

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore, SentFiles
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.exported_files import NotKeptHere
from syncd.cli.daemon_client import RETRY_S, STARTS_S, answers, order_daemon
from syncd.cli.options import CLOCK, hinted, interruptible
from syncd.cli.output import log_level
from syncd.cli.progress import ProgressDisplay
from syncd.core.clock import day_and_time
from syncd.core.directories import Lock
from syncd.core.errors import ExitCode, KeyRefused, Locked, NeedsPerson, SyncdError
from syncd.core.settings import Config
from syncd.core.text import ago, counted, few, shown_path
from syncd.core.waiter import Waiter
from syncd.daemon.build import access_of, excludes_for, folders_of, key_of, reader_of, selection_of, target_of
from syncd.merge.git import find_git
from syncd.merge.home import AgentSide, HomeFolder
from syncd.merge.workspace_writer import JournalEntry, WorkspaceWriter
from syncd.model.entry import SeenEntry, same
from syncd.model.manifest import Manifest, is_within
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.http_client import HttpClient
from syncd.remote.target import Target
from syncd.report.logs import LogFormat, set_up_logs
from syncd.report.status_store import followed_at_s
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sandbox.saved_versions import Why
from syncd.scan.guards import LossGuard
from syncd.selection.selection import PathPatterns
from syncd.store.blobs import Blobs
from syncd.store.state_db import StateDb
from syncd.sync.agent_work import AgentWork, IsExcluded, agent_work, differing, find_agent_work
from syncd.sync.following import FollowedStore, save_followed
from syncd.sync.sandbox import Access, Sandbox
from syncd.sync.work_saver import save_before_all_goes

# What is taken back leaves such a path as it is.
WHY_LEFT = "changed since the apply, or excluded by a rule"
_SCRATCH = "command-"


class OpenSandbox(Struct, frozen=True):
    """The parts by which a command asks the sandbox, and its folder for what it fetches and writes meanwhile."""

    access: Access
    sandbox: Sandbox
    scratch: str


def for_each(configs: Sequence[Config], ask: Callable[[Config], None]) -> ExitCode:
    """Ask each of these sandboxes. Return the exit code of the first failure; raise that of one that is alone.

    Of several, one that fails is named on stderr, and keeps no other from being asked.
    """
    failed = ExitCode.DONE
    for config in configs:
        try:
            ask(config)
        except SyncdError as failure:
            if len(configs) == 1:
                raise
            click.echo(f"{config.sandbox_name}: {failure}", err=True)
            failed = failed or failure.exit_code
    return failed


@contextlib.contextmanager
def connected(config: Config) -> Iterator[Access]:
    """The access to the account of this configuration's sandbox. Raises `SyncdError`, `Stop`."""
    set_up_logs(log_level("error"), LogFormat.TEXT, {})
    with interruptible() as waiter:
        client = HttpClient(waiter)
        access = access_of(config, os.environ, key_of(config, os.environ), client)
        try:
            yield access
        except StepFailed as failure:
            raise failure.as_error() from None
        finally:
            access.db.close()
            client.drop()


@contextlib.contextmanager
def open_sandbox(config: Config) -> Iterator[OpenSandbox]:
    """Open the parts by which a command asks the sandbox; the files that they fetch are gone at the end.

    Raises `SyncdError`, `Stop`.
    """
    target = target_of(config, os.environ)
    with connected(config) as access, scratch_folder(access.folders.spool) as scratch:
        yield OpenSandbox(access, Sandbox(access, target, os.path.join(scratch, "look")), scratch)


_Find = Callable[[OpenSandbox, IsExcluded], AgentWork]


def look_at(opened: OpenSandbox, included: PathPatterns | None = None) -> AgentSide:
    """Look at an open sandbox; `included` paths count although the rules exclude them.

    Where nobody can look, what following keeps at home is taken; it has no `included` paths.

    Raises `SyncdError`, `StepFailed`, `OSError` where the state cannot be read, `Stop`.
    """
    opened.access.db.require_readable()  # a full disk is no empty state
    if not opened.sandbox.state.content.is_known:
        raise NeedsPerson("nothing is known to have been sent to this sandbox yet", "run `syncd push` first")
    config = opened.access.config
    if config.sandbox.follow_seconds:  # its looks go on after a silence
        with contextlib.suppress(SyncdError):
            order_daemon(config, {"do": "look", "sandbox": config.sandbox_name})
    side = _look_at(opened, _find_newest if included is None else _find_there, included)
    if side.home.writer.is_half_done:
        what = "an apply was killed, and what it wrote is still here: `syncd apply --undo` takes it back"
        click.echo(f"{hinted(what)}; so does the next apply", err=True)
    if unsearched := few([*map(shown_path, side.work.unsearched)], len(side.work.unsearched)):
        _tell(config, f"not searched: {', '.join(unsearched)} in the sandbox: unreadable, or not in time")
    if side.work.unlisted:
        _tell(config, f"{side.work.unlisted:,} more new paths in the sandbox are not listed")
    if side.work.not_kept:
        _tell(config, f"not all is shown: {side.work.not_kept}")
    return side


def _tell(config: Config, text: str) -> None:
    """Say on stderr what goes for this sandbox, of several with its name."""
    click.echo(f"{config.sandbox_name}: {text}" if len(config.sandboxes) > 1 else text, err=True)


def _look_at(opened: OpenSandbox, find: _Find, included: PathPatterns | None = None) -> AgentSide:
    """Find the agent's work. Raises `StepFailed`, `SyncdError`, `Stop`."""
    access, state = opened.access, opened.sandbox.state
    home = home_folder(access.config, access.db, access.waiter, opened.scratch)
    rules, revision = home.rules(), state.revision

    def is_included(path: str, is_dir: bool) -> bool:
        # A pattern such as `build/*` matches what is in a folder, which must be entered then.
        return included is not None and (path in included or (is_dir and f"{path}/x" in included))

    def is_excluded(path: str, is_dir: bool) -> bool:
        return not is_included(path, is_dir) and rules.exclude(path, is_dir)

    def is_unsearched(path: str, is_dir: bool) -> bool:
        is_on_the_way = is_dir and included is not None and included.leads_into(path)
        return is_excluded(path, is_dir) and not is_on_the_way

    work = _without_ours(opened.sandbox, find(opened, is_unsearched), is_excluded)
    entered = [path for path, there in work.changed.items() if is_excluded(path, there.is_directory)]
    work = work.excluding({*entered, *(path for path in home.search(work.changed) if not is_included(path, False))})
    return AgentSide(home, opened.sandbox, work, rules, is_excluded, revision)


def _without_ours(sandbox: Sandbox, work: AgentWork, is_excluded: IsExcluded) -> AgentWork:
    """Return the work without what a sync that was made beside the look put there, or removed there."""
    if work.changed:
        sandbox.state.read()
        changed = differing(work.changed, sandbox.state.content, is_excluded)
        if len(changed) < len(work.changed):
            work = replace(work, changed=changed)
            sandbox.looks.seen.note_all(work.seen_paths)
    return work


def _find_newest(opened: OpenSandbox, is_excluded: IsExcluded) -> AgentWork:
    """Look at the sandbox; where nobody can, take what following keeps, and say as of when it last found just that."""
    try:
        return _find_there(opened, is_excluded)
    except StepFailed as failure:
        state, target, config = opened.sandbox.state, opened.sandbox.target, opened.access.config
        store = FollowedStore(state.db, target)
        if not config.sandbox.follow_seconds or failure.refusal is KeyRefused:
            raise
        store.drop_damaged()
        kept = store.load()
        if kept is None:
            raise
        _tell(config, f"the sandbox cannot be asked: {failure.message}")
        at_s = max(kept.at_s, followed_at_s(opened.access.folders.state, target))
        age_s = max(0.0, CLOCK.wall_s() - at_s)
        _tell(config, f"as of {day_and_time(at_s)}, {ago(age_s)}")
        return agent_work(kept, state.content, is_excluded)


def _find_there(
    opened: OpenSandbox, is_excluded: IsExcluded, known: Mapping[str, SeenEntry] = MappingProxyType({})
) -> AgentWork:
    """Look at the sandbox, but not for what is as it is known to be."""
    with ProgressDisplay("looking at the sandbox", silent_s=0.5):
        return find_agent_work(opened.sandbox.looks, opened.sandbox.state.content, is_excluded, known=known)


def home_folder(config: Config, db: StateDb, waiter: Waiter, scratch: str) -> HomeFolder:
    """Return the workspace that work comes home to, with the writer of what this sandbox has. Raises `ConfigError`."""

    def target(name: str) -> Target | None:
        with contextlib.suppress(NeedsPerson):
            return target_of(config.for_sandbox(name), os.environ) if name in config.sandboxes else None
        return None

    spool = folders_of(config, os.environ).spool
    base_store = BaseStore(spool, ChunkStore(spool))
    return HomeFolder(
        config.workspace.path,
        scratch,
        selection_of(config, os.environ),
        excludes_for(config, os.environ),
        reader_of(config, CLOCK, os.environ).secrets,
        SentFiles(config.workspace.path, scratch, base_store, Blobs(db)),
        WorkspaceWriter(config.workspace.path, db, CLOCK, target, config.sandbox_name),
        db,
        find_git(os.environ, waiter),
        _guard(config).missing_mounts(),
    )


@contextlib.contextmanager
def open_home(config: Config, waiter: Waiter, scratch: str = "") -> Iterator[HomeFolder]:
    """Open the workspace that work comes home to, without a sandbox. Raises `ConfigError`."""
    with contextlib.closing(StateDb(folders_of(config, os.environ).state)) as db:
        yield home_folder(config, db, waiter, scratch)


def take_back_killed(config: Config) -> None:
    """Take back what an `apply` that was killed has written, and say so. Raises `TryLater`, `Locked`."""
    # What is looked at is not half of a sync either.
    with (
        interruptible() as waiter,
        open_home(config, waiter) as home,
        no_sync_begins(written_config(config, home.writer.killed), waiter),
    ):
        taken_back = home.writer.finish_interrupted()
    if taken_back.done:
        click.echo(f"took back an apply that was killed: {counted(len(taken_back.done), 'path')}", err=True)
    for path in taken_back.left:
        click.echo(f"stays     {shown_path(path)}: {WHY_LEFT}", err=True)


def written_config(config: Config, entry: JournalEntry | None) -> Config:
    """The configuration of the sandbox that a write came from."""
    return config.for_sandbox(entry.sandbox) if entry is not None and entry.sandbox in config.sandboxes else config


def is_named(path: str, named: Collection[str]) -> bool:
    """True if the path is one that was named, or below one; all are if none was."""
    return not named or "" in named or is_within(path, named)


def tell_excluded(side: AgentSide, what_becomes: str) -> None:
    """Say on stderr how many paths the rules exclude, and what becomes of them."""
    if count := side.excluded:
        click.echo(f"{counted(count, 'excluded path')} in the sandbox: {what_becomes}", err=True)


def save_before_release(config: Config) -> str:
    """Save all that differs in the sandbox, and return what a person must know before it goes; "" if all is saved.

    Where it is not known what was sent there, all that differs from the workspace is. Raises as `look_at` does.
    """
    with open_sandbox(config) as opened:
        opened.access.db.require_readable()
        sandbox, state = opened.sandbox, opened.sandbox.state

        def find(known: Mapping[str, SeenEntry]) -> AgentWork:
            side = _look_at(opened, partial(_find_there, known=known))
            if state.content.is_known:
                return side.work
            here = side.local()
            return side.work.excluding([path for path, there in side.work.changed.items() if same(here[path], there)])

        try:
            unsaved = save_before_all_goes(sandbox, find, Why.RELEASED, {})
        except (StepFailed, NotKeptHere) as failure:
            if isinstance(failure, StepFailed):
                if failure.action is FailureAction.OFFLINE or failure.refusal is KeyRefused:
                    raise
                save_followed(sandbox.saver, state, Why.RELEASED)
                if sandbox.looks.ask_if_gone(failure):
                    return ""
            return f"nobody could look for what an agent changed there ({failure.message})"
        return f"{unsaved.count} there could not be saved: {unsaved}" if unsaved else ""


@contextlib.contextmanager
def scratch_folder(spool: str) -> Iterator[str]:
    """Make a folder for what a command does, and remove it at the end, with those of killed ones. Raises `OSError`."""
    with contextlib.suppress(OSError):
        for name in os.listdir(spool):
            pid = name.removeprefix(_SCRATCH).partition(".")[0]
            if name.startswith(_SCRATCH) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                shutil.rmtree(os.path.join(spool, name), ignore_errors=True)
    with TemporaryDirectory(prefix=f"{_SCRATCH}{os.getpid()}.", dir=spool, ignore_cleanup_errors=True) as folder:
        yield folder


@contextlib.contextmanager
def no_sync_begins(config: Config, waiter: Waiter) -> Iterator[None]:
    """Keep the daemon from syncing meanwhile, or any other process, if none runs.

    A sync of the daemon to this sandbox that is under way is waited for, the snapshot for another one, and a daemon
    that starts, or reads its configuration anew. Raises `Locked`, `TryLater`, `WorkspaceError`, `Stop`.
    """
    request, told = {"do": "write", "sandbox": config.sandbox_name}, False
    ends_s = waiter.clock.monotonic_s() + STARTS_S

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            click.echo("a sync is under way: waiting for its end, as it may take minutes", err=True)

    with contextlib.ExitStack() as stack:
        while True:
            messages = stack.enter_context(contextlib.closing(answers(config, request, waiter, on_silence=tell)))
            if any(message["event"] == "ready" for message in messages):  # until the connection is closed
                break
            try:
                stack.enter_context(Lock(folders_of(config, os.environ).state))
                break
            except Locked:
                if waiter.clock.monotonic_s() >= ends_s:
                    raise
                waiter.sleep(RETRY_S)
        check_place(config)
        yield


def check_place(config: Config) -> None:
    """Refuse to write to another directory in the workspace's place. Raises `WorkspaceError`."""

    def base() -> Manifest:
        with contextlib.closing(StateDb(folders_of(config, os.environ).state)) as db, contextlib.suppress(NeedsPerson):
            return SandboxState(db, target_of(config, os.environ), name=config.sandbox_name).content.base
        return Manifest()  # none is acquired yet

    _guard(config).check_place(base)


def _guard(config: Config) -> LossGuard:
    guard = LossGuard(config.workspace.path, folders_of(config, os.environ).state)
    guard.load()
    guard.begin()
    return guard
