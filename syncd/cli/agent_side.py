"""The agent's side for a command: what differs in the sandbox, beside a running daemon or without one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.exported_files import NotKeptHere
from syncd.cli.daemon_client import order_daemon
from syncd.cli.options import CLOCK
from syncd.cli.output import log_level
from syncd.cli.progress import ProgressDisplay
from syncd.core.clock import utc
from syncd.core.directories import Directories, Lock
from syncd.core.errors import KeyRefused, NeedsPerson, SyncdError
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.settings import Config
from syncd.core.text import MOST_NAMED, ago, counted, one_line, shown_path
from syncd.core.waiter import Waiter
from syncd.daemon.build import excludes_for, folders_of, key_of, reader_of, selection_of, target_of, workspace_of
from syncd.daemon.control import writing
from syncd.merge.branch import SandboxCommit, UnreadablePack, read_pack
from syncd.merge.git import ANY_CODE, find_git, find_work_tree, need_git
from syncd.merge.workspace_writer import WorkspaceWriter
from syncd.model.entry import (
    Entry,
    Kind,
    SeenEntry,
    arrived_digest,
    same,
)
from syncd.model.manifest import Manifest, directories_above
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.http_client import HttpClient
from syncd.remote.target import Target
from syncd.report.logs import LogFormat, set_up_logs
from syncd.report.status_store import followed_at_s
from syncd.sandbox.agent_repository import recorded_home
from syncd.sandbox.followed_work import FollowedStore, FollowedWork
from syncd.sandbox.protocol import RepositoryState, SandboxCommits
from syncd.sandbox.sandbox_state import SandboxContent, TakenPath
from syncd.sandbox.saved_versions import SentEntry, Why
from syncd.scan.path_rules import PathRules
from syncd.selection.selection import PathPatterns
from syncd.store.state_db import StateDb
from syncd.sync.agent_work import (
    AgentWork,
    LeaveOut,
    agent_work,
    find_agent_work,
    pruned_names,
    save_before_all_goes,
)
from syncd.sync.following import save_followed
from syncd.sync.sandbox_services import SandboxFactory, SandboxServices

_BLOCK = 1 << 18
_SCRATCH = "command-"
_TOLD_AFTER_S = 2.0
# What following kept so much longer ago than it was to look is of just now: a look takes its time.
_JUST_NOW_S = 5.0


class OpenSandbox(Struct, frozen=True):
    """The parts by which a command asks the sandbox, and its folder for what it fetches and writes meanwhile."""

    config: Config
    folders: Directories
    target: Target
    services: SandboxServices
    waiter: Waiter
    scratch: str


class AgentSide(Struct, frozen=True):
    """The three sides: what was sent, what is here, and, in `work`, what differs in the sandbox.

    `leave_out` says which paths stay home by the rules, but for those that the person included. `is_unanswered`: a sync
    may have changed the sandbox in a way that is not recorded.
    """

    opened: OpenSandbox
    base: Manifest
    work: AgentWork
    rules: PathRules
    base_store: BaseStore
    writer: WorkspaceWriter
    leave_out: LeaveOut
    base_identity: str
    is_unanswered: bool

    def place(self, path: str) -> str:
        """Return where the path is on this machine."""
        return os.path.join(self.opened.config.workspace.path, path)

    def here(self, path: str, entry: Entry) -> SeenEntry:
        """Return an entry of home, whose content is here, as one of the sandbox."""
        return with_copy(entry, self.place(path))

    def local(self) -> dict[str, Entry]:
        """Return what is here at each path that differs, and above it. Raises `TryLater`."""
        return self.writer.look({*self.work.changed, *directories_above(self.work.changed)})

    def base_version(self, path: str, here: Entry) -> SeenEntry | None:
        """Return what was sent as this path; None for a directory, and where its bytes are gone."""
        entry = self.work.base_of(path)
        if entry is None or entry.kind is Kind.DIRECTORY:
            return None
        if entry.kind is Kind.SYMLINK or same(here, entry):
            return self.here(path, entry)
        content = self.base_bytes(path, entry, here)
        if content is None:
            return None
        copy = os.path.join(self.opened.scratch, f"sent-{hashlib.sha256(content).hexdigest()}")
        with open(copy, "wb") as file:
            file.write(content)
        return with_copy(entry, copy)

    def sent(self, path: str) -> SentEntry | None:
        """Return what was sent as this path, with its bytes if they are known."""
        return self.work.sent(path, self.base_store.get)

    def base_bytes(self, path: str, entry: Entry, here: Entry) -> bytes | None:
        """Return the bytes that were sent as this path, None if they are gone."""
        digest = arrived_digest(entry)
        if here.digest == digest != b"":
            with contextlib.suppress(OSError), open(self.place(path), "rb") as file:
                return file.read()
        if not digest:
            return None
        content = self.base_store.get(path, digest)
        return content if content is not None else self._committed(path, digest)

    @property
    def left_out(self) -> int:
        """The number of paths in the sandbox that the rules exclude."""
        return len(self.work.left_out) + len(self.work.pruned)

    def tell_left_out(self, what_becomes: str) -> None:
        """Say on stderr how many paths the rules leave out, and what becomes of them."""
        if count := self.left_out:
            paths = counted(count, "path")
            click.echo(f"{paths} in the sandbox that the workspace's rules exclude: {what_becomes}", err=True)

    def _committed(self, path: str, digest: bytes) -> bytes | None:
        """Return the bytes that the repository's current commit has of the path, if they are those that were sent."""
        git = find_git(os.environ)
        if git is None:
            return None
        try:
            work_tree = find_work_tree(git, self.opened.config.workspace.path)
            name = f"{work_tree.head}:{work_tree.prefix}{path}"
            found = git.run(["cat-file", "blob", name], {"GIT_DIR": work_tree.folder}, ANY_CODE)
        except SyncdError:
            return None
        return found.output if found.code == 0 and hashlib.sha256(found.output).digest() == digest else None


def with_copy(entry: Entry, copy: str) -> SeenEntry:
    """Return an entry of home as one of the sandbox, with the file that holds its content."""
    digest = arrived_digest(entry)
    return SeenEntry(entry.kind, entry.mode, entry.mtime_s, entry.size_bytes, entry.target, digest=digest, copy=copy)


def for_each(configs: Sequence[Config], ask: Callable[[Config], None]) -> SyncdError | None:
    """Ask each of these sandboxes. Return the first failure; raise that of one that is alone.

    Of several, one that fails is named on stderr, and keeps no other from being asked.
    """
    failed = None
    for config in configs:
        try:
            ask(config)
        except (SyncdError, StepFailed) as failure:
            if len(configs) == 1:
                raise
            error = failure.as_error() if isinstance(failure, StepFailed) else failure
            click.echo(f"{config.sandbox_name}: {error}", err=True)
            failed = failed or error
    return failed


@contextlib.contextmanager
def open_sandbox(config: Config) -> Iterator[OpenSandbox]:
    """Open the parts by which a command asks the sandbox; the files that they fetch are gone at the end.

    Raises `SyncdError`, `OSError` where the state cannot be read, `Stop`.
    """
    set_up_logs(log_level("error"), LogFormat.TEXT, {})
    waiter = Waiter(Interrupt(), CLOCK)
    folders = folders_of(config, os.environ)
    target, key = target_of(config, os.environ), key_of(config, os.environ)
    client = HttpClient(waiter)
    workspace = workspace_of(config, os.environ, key, client)
    try:
        workspace.db.require_readable()
        with scratch_folder(folders.spool, config.sandbox_name) as scratch, interrupting(waiter.interrupt):
            look = os.path.join(scratch, "look")
            factory = SandboxFactory(workspace, "", waiter.interrupt.check, lambda _path, _is_dir: False, look)
            yield OpenSandbox(config, folders, target, factory.build(target), waiter, scratch)
    finally:
        workspace.db.close()
        client.drop()


_Find = Callable[[OpenSandbox, SandboxContent, LeaveOut], AgentWork]


def look_at(opened: OpenSandbox, included: PathPatterns | None = None, find: _Find | None = None) -> AgentSide:
    """Look at an open sandbox; `included` paths count although the rules leave them out.

    What following keeps is taken if that is of just now, unless `find` is `find_newest`.

    Raises `SyncdError`, `StepFailed`, `Stop`.
    """
    base = opened.services.state.base
    if base is None:
        raise NeedsPerson("nothing is known to have been sent to this sandbox yet", "run `syncd push` first")
    # What the rules exclude is not kept at home.
    side = _look_at(opened, base, find or _find_kept if included is None else _find_there, included)
    for path in side.work.unsearched[:MOST_NAMED]:
        click.echo(f"not searched: {shown_path(path)} in the sandbox cannot be read, or not in time", err=True)
    if len(side.work.unsearched) > MOST_NAMED:
        click.echo(f"not searched: {counted(len(side.work.unsearched) - MOST_NAMED, 'more folder')}", err=True)
    if side.work.unlisted:
        click.echo(f"{side.work.unlisted:,} more new paths in the sandbox are not listed", err=True)
    if side.work.not_kept:
        click.echo(f"not all is shown: {side.work.not_kept}", err=True)
    return side


def _look_at(opened: OpenSandbox, base: Manifest, find: _Find, included: PathPatterns | None = None) -> AgentSide:
    """Find the agent's work, with that base. Raises `StepFailed`, `SyncdError`, `Stop`."""
    config, folders, services = opened.config, opened.folders, opened.services
    state = services.state
    content = replace(state.content, base=base)
    rules = path_rules(config)

    def is_included(path: str, is_dir: bool) -> bool:
        # A pattern such as `build/*` matches what is in a folder, which must be entered then.
        return included is not None and (path in included or (is_dir and f"{path}/x" in included))

    def leave_out(path: str, is_dir: bool) -> bool:
        return not is_included(path, is_dir) and rules.leave_out(path, is_dir)

    work = find(opened, content, leave_out)
    work = work.leaving_out([path for path in secret_paths(config, work.changed) if not is_included(path, False)])
    return AgentSide(
        opened,
        base,
        work,
        rules,
        BaseStore(folders.spool, ChunkStore(folders.spool)),
        writer_of(config, state.db),
        leave_out,
        state.identity,
        state.uncertain,
    )


def _find_kept(opened: OpenSandbox, content: SandboxContent, leave_out: LeaveOut) -> AgentWork:
    """Take what following keeps at home, if that is whole and of just now or if nobody can look; else look."""
    kept, at_s = _kept(opened)
    follow_s = opened.config.sandbox.follow_seconds
    # A clock that was set back makes it of later: how old it is then nobody knows.
    if kept is not None and 0 <= CLOCK.wall_s() - at_s <= follow_s + _JUST_NOW_S:
        checked = _checked(opened, kept, content)
        if all(entry.copy or not kept.there[path].copy for path, entry in checked.there.items()):
            return _kept_work(opened, checked, at_s, content, leave_out)
    if follow_s:
        with contextlib.suppress(SyncdError):  # where it does not look now, it does after the next sync
            order_daemon(opened.config, {"do": "look", "sandbox": opened.config.sandbox_name})
    return find_newest(opened, content, leave_out)


def _kept(opened: OpenSandbox) -> tuple[FollowedWork | None, float]:
    """Return what following keeps, if it is configured, and as of when that is."""
    if not opened.config.sandbox.follow_seconds:
        return None, 0.0
    kept = FollowedStore(opened.services.state.db, opened.target).load()
    return kept, 0.0 if kept is None else max(kept.at_s, followed_at_s(opened.folders.state, opened.target))


def find_newest(opened: OpenSandbox, content: SandboxContent, leave_out: LeaveOut) -> AgentWork:
    """Look at the sandbox; where nobody can, take what following keeps."""
    kept, at_s = _kept(opened)
    if kept is None:
        return _find_there(opened, content, leave_out)
    try:
        return _find_there(opened, content, leave_out)
    except StepFailed as failure:
        if failure.refusal is KeyRefused:
            raise
        click.echo(f"the sandbox cannot be asked: {failure.message}", err=True)
        return _kept_work(opened, _checked(opened, kept, content), at_s, content, leave_out)


def _checked(opened: OpenSandbox, kept: FollowedWork, content: SandboxContent) -> FollowedWork:
    """Return what still holds of the kept work, without the contents that this disk damaged."""
    return FollowedStore(opened.services.state.db, opened.target).checked(kept.holding(content))


def _find_there(
    opened: OpenSandbox,
    content: SandboxContent,
    leave_out: LeaveOut,
    known: Mapping[str, SeenEntry] = MappingProxyType({}),
) -> AgentWork:
    """Look at the sandbox, but not for what is as it is known to be."""
    with ProgressDisplay(silent_s=0.5) as progress:
        progress.doing("looking at the sandbox")
        return find_agent_work(opened.services.remote_changes, content, leave_out, known=known)


def _kept_work(
    opened: OpenSandbox, kept: FollowedWork, at_s: float, content: SandboxContent, leave_out: LeaveOut
) -> AgentWork:
    """Return what is kept at home, and say as of when. Its contents are this command's, whatever becomes of them."""
    there = dict(kept.there)
    for number, (path, entry) in enumerate(there.items()):
        if entry.copy:
            copy = os.path.join(opened.scratch, f"kept-{number}")
            there[path] = replace(entry, copy=copy if _linked(entry.copy, copy) else "")
    at, age_s = utc(at_s).astimezone(), max(0.0, CLOCK.wall_s() - at_s)
    click.echo(f"as of {at:%Y-%m-%d %H:%M:%S}, {ago(age_s)}", err=True)
    result = replace(kept, there=there).result(content)
    return agent_work(result, content, leave_out, pruned_names(leave_out))


def _linked(source: str, target: str) -> bool:
    """Link a file, or copy it to another file system; false if it is gone."""
    try:
        os.link(source, target)
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError:
            return False
    return True


def commits_there(opened: OpenSandbox) -> tuple[SandboxCommits, tuple[SandboxCommit, ...]]:
    """Return the sandbox's report, and the commits, the oldest first; none without a repository, or where it failed.

    The copies of contents go when the sandbox is closed. Raises `SyncdError`, `StepFailed`, `Stop`.
    """
    home = recorded_home(opened.services.state.db, opened.target)
    if not home:
        return SandboxCommits(RepositoryState.LOST, "syncd made no repository in this sandbox"), ()
    git, folder = need_git(os.environ), os.path.join(opened.scratch, "commits")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with ProgressDisplay(silent_s=0.5) as progress:
        progress.doing("reading the commits in the sandbox")
        check = opened.waiter.interrupt.check
        found, pack = opened.services.agent_repository.fetch_commits(home, folder, check)
        if not pack:
            return found, ()
        try:
            return found, read_pack(git, found, pack, folder)
        except UnreadablePack as reason:
            return replace(found, state=RepositoryState.FAILED, why=str(reason), unlisted=0), ()


def tell_rest(found: SandboxCommits, commits: Collection[SandboxCommit]) -> None:
    """Say on stderr what else the agent's repository has, which stays there."""
    tell = partial(click.echo, err=True)
    for what in found.under_way:
        tell(f"a {one_line(what, 20)} is under way in the sandbox")
    if not found.branch and (commits or found.under_way):
        tell("no branch is checked out in the sandbox: these are the commits of its HEAD")
    if found.unlisted:
        tell(f"{counted(found.unlisted, 'newer commit')} in the sandbox are too many to be read")
    if found.stashes:
        tell("1 stash stays there" if found.stashes == 1 else f"{found.stashes:,} stashes stay there")
    for name, number in found.branches:
        tell(f"the branch {one_line(name, 80)!r} with {counted(number, 'more commit')} stays there")
    if found.more_branches:
        tell("more branches in the sandbox were not looked at")


def writer_of(config: Config, db: StateDb) -> WorkspaceWriter:
    """Return the writer to the workspace, which records what counts as sent whenever it takes something back."""
    from syncd.cli.apply.undoing import record_back, sandbox_id, written_config  # noqa: PLC0415 - it needs what is above

    def taking_back(taken: Sequence[TakenPath]) -> None:
        record_back(written_config(config, db), db, taken)

    source = {"sandbox": config.sandbox_name, "sandbox_id": sandbox_id(config)}
    return WorkspaceWriter(config.workspace.path, db, CLOCK, taking_back, **source)


def path_rules(config: Config) -> PathRules:
    """Return the workspace's rules as they are now. Raises `WorkspaceError`."""
    return PathRules(config.workspace.path, selection_of(config, os.environ), excludes_for(config, os.environ))


def secret_paths(config: Config, paths: Iterable[str]) -> Collection[str]:
    """Return those of the paths that stay home since they hold a secret here. Raises `WorkspaceError`."""
    return reader_of(config, CLOCK, os.environ).secrets(paths)


def save_before_release(config: Config) -> str:
    """Save all that differs in the sandbox, and return what a person must know before it goes; "" if all is saved.

    Where it is not known what was sent there, all that differs from the workspace is. Raises as `look_at` does.
    """
    with open_sandbox(config) as opened:
        state, remote_changes = opened.services.state, opened.services.remote_changes
        base_bytes = BaseStore(opened.folders.spool, ChunkStore(opened.folders.spool)).get

        def find(known: Mapping[str, SeenEntry]) -> AgentWork:
            side = _look_at(opened, state.base or Manifest(), partial(_find_there, known=known))
            if state.base is not None:
                return side.work
            here = side.local()
            return side.work.leaving_out([path for path, there in side.work.changed.items() if same(here[path], there)])

        try:
            unsaved = save_before_all_goes(remote_changes, find, Why.RELEASED, base_bytes, {})
        except (StepFailed, NotKeptHere) as failure:
            if isinstance(failure, StepFailed):
                if failure.action is FailureAction.OFFLINE or failure.refusal is KeyRefused:
                    raise
                save_followed(remote_changes, state, Why.RELEASED, base_bytes, CLOCK.wall_s())
                if remote_changes.is_gone(failure):
                    return ""
            return f"nobody could look for what an agent changed there ({failure.message})"
        return f"{unsaved.count} there could not be saved: {unsaved}" if unsaved else ""


@contextlib.contextmanager
def scratch_folder(spool: str, sandbox: str) -> Iterator[str]:
    """Make a folder for what this command does with a sandbox, and remove it at the end, with those of killed ones."""
    folder = os.path.join(spool, f"{_SCRATCH}{os.getpid()}.{sandbox}")
    with contextlib.suppress(OSError):
        for name in os.listdir(spool):
            pid = name.removeprefix(_SCRATCH).partition(".")[0]
            if name.startswith(_SCRATCH) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                shutil.rmtree(os.path.join(spool, name), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # whoever needs it says so
        os.makedirs(folder, 0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def no_sync_begins(config: Config, waiter: Waiter | None = None) -> Iterator[None]:
    """Keep the daemon from syncing meanwhile, or any other process, if none runs.

    A sync of the daemon to this sandbox that is under way is waited for, and the snapshot for another one. Raises
    `Locked`, `TryLater`, `Stop`.
    """
    folder = folders_of(config, os.environ).state
    told = False

    def waiting(waited_s: float) -> None:
        nonlocal told
        if not told and waited_s > _TOLD_AFTER_S:
            told = True
            click.echo("a sync is under way: waiting for its end, as it may take minutes", err=True)

    with contextlib.ExitStack() as stack:
        if not stack.enter_context(writing(folder, waiter or Waiter(Interrupt(), CLOCK), waiting, config.sandbox_name)):
            lock = Lock(folder)
            lock.acquire()
            stack.callback(lock.release)
        yield
