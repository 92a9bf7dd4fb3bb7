"""Makes, opens and connects the parts of a daemon, and of commands that sync by themselves."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from enum import Enum
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.packer import Packer
from syncd.archive.snapshotter import Snapshotter
from syncd.core.api_key import ApiKey, find_key
from syncd.core.choices import GitThere
from syncd.core.clock import Clock
from syncd.core.config_file import own_files, own_folders
from syncd.core.directories import Directories, Lock, directories_for
from syncd.core.durable_file import remove_drafts
from syncd.core.errors import ConfigError, KeyRefused, NeedsPerson, SyncdError
from syncd.core.hardening import make_undumpable
from syncd.core.settings import MAIN, AcquireKeys, Config, table_of
from syncd.core.waiter import Waiter
from syncd.daemon.control import ControlServer
from syncd.daemon.follower import FollowedSandbox, Follower, FollowerParts
from syncd.daemon.left_sandbox import LeftSandbox
from syncd.daemon.loop import Daemon, SandboxChanges
from syncd.daemon.sandbox_loop import LoopParts, SandboxLoop
from syncd.daemon.setup_task import SetupSandbox, SetupTask
from syncd.daemon.shared_state import SharedState
from syncd.daemon.signals import Signals
from syncd.merge.followed_commits import FollowedCommits
from syncd.merge.git import personal_excludes
from syncd.model.manifest import Manifest
from syncd.remote.bucket import Throttle
from syncd.remote.http_client import HttpClient
from syncd.remote.target import Target, should_be_replaced
from syncd.report.desktop_notifier import DesktopNotifier
from syncd.report.history import History, HistoryRecorder
from syncd.report.logs import keep_out_of_logs
from syncd.report.status_publisher import TOTALS, RunTotals, StatusPublisher, WorkspaceStatus
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sandbox.mcp_servers import McpServers
from syncd.sandbox.provider import AcquiredSandboxStore, SandboxProvider, acquired_of
from syncd.sandbox.sandbox_state import forget_name, last_target, recorded_names
from syncd.sandbox.saved_versions import SavedVersions
from syncd.scan.file_reader import ContentReader
from syncd.scan.guards import LossGuard
from syncd.scan.path_rules import PathRules
from syncd.scan.scanner import Scanner
from syncd.selection.gitignore import bad_pattern
from syncd.selection.secret_scanner import Search, SecretSearch
from syncd.selection.selection import Selection
from syncd.store.state_db import StateDb
from syncd.sync.agent_work import LeaveOut
from syncd.sync.delivery import FirstArchives
from syncd.sync.following import save_left
from syncd.sync.sandbox import SandboxFactory, SandboxServices, Workspace
from syncd.sync.status_document import SandboxStatus, State
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.synced_hook import SyncedHook
from syncd.sync.work_saver import WorkSaver
from syncd.watch.changes import ScanListener
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.suspend_detector import SuspendDetector

_log = logging.getLogger("syncd")


class Role(Enum):
    """The process that a loop runs in."""

    DAEMON = "`run`, until a signal ends it"
    COMMAND = "a command that syncs by itself, as no daemon runs"


def target_of(config: Config, environ: Mapping[str, str]) -> Target:
    """The sandbox of this configuration's workspace. Raises `NeedsPerson` where none has been acquired yet."""
    sandbox = config.sandbox
    if sandbox.id is not None:
        return Target(sandbox.base_url, sandbox.id, sandbox.region)
    acquired_sandbox = acquired_of(config, places_of(config, environ).state)
    if acquired_sandbox is None:
        raise NeedsPerson("no sandbox has been acquired yet", "run `syncd sandbox acquire`, or `syncd push`")
    return Target(sandbox.base_url, acquired_sandbox.sandbox_id, sandbox.region)


def _known_target(workspace: Workspace) -> Target | None:
    """The same as far as it is known without a request: None also where the acquired sandbox has ended."""
    sandbox = workspace.config.sandbox
    if sandbox.id is not None:
        return Target(sandbox.base_url, sandbox.id, sandbox.region)
    acquired_sandbox = acquired_of(workspace.config, workspace.folders.state)
    if acquired_sandbox is None or should_be_replaced(acquired_sandbox, workspace.clock.wall_s()):
        return None
    return Target(sandbox.base_url, acquired_sandbox.sandbox_id, sandbox.region)


def selection_of(config: Config, environ: Mapping[str, str]) -> Selection:
    """The selection that `[workspace]` describes. Raises `ConfigError` for a pattern that can match nothing."""
    keys = config.workspace
    lists = {
        "workspace.ignore": keys.ignore,
        "workspace.allow_secrets": keys.allow_secrets,
    }
    for name, sandbox in config.sandboxes.items():
        lists[f"{table_of(name)}.setup_files"] = sandbox.setup_files
    for name, patterns in lists.items():
        for pattern in patterns:
            why = bad_pattern(pattern)
            if why is not None:
                raise ConfigError(f"{name} = [{pattern!r}]: {why}", "write it as in a .gitignore file")
    for pattern in keys.allow_secrets:
        if pattern.startswith("!"):
            raise ConfigError(f"workspace.allow_secrets = [{pattern!r}]: allows nothing", "name what is allowed only")
    return Selection(
        ignore=keys.ignore,
        use_gitignore=keys.use_gitignore,
        include_git=keys.git is GitThere.RAW,
        upload_secrets=keys.upload_secrets,
        allow_secrets=keys.allow_secrets,
        own_folders=own_folders(environ),
        own_files=partial(own_files, config, environ),
    )


def secret_search_of(config: Config, *own_keys: str) -> Search:
    keys = config.workspace
    return Search() if keys.upload_secrets else SecretSearch(keys.allow_secrets, *own_keys)


def reader_of(config: Config, clock: Clock, environ: Mapping[str, str]) -> ContentReader:
    """The reader of contents for commands that ask no server: the key is searched for in files only if there is one."""
    keys = []
    for name in config.sandboxes:
        with suppress(KeyRefused):
            keys.append(key_of(config.for_sandbox(name), environ).reveal())
    return ContentReader(config.workspace.path, clock, search=secret_search_of(config, *keys))


def excludes_for(config: Config, environ: Mapping[str, str]) -> str:
    """The path of the person's own exclude file, if git's rules count. Raises `ConfigError`, `TryLater`."""
    return personal_excludes(environ) if config.workspace.use_gitignore else ""


def key_of(config: Config, environ: Mapping[str, str]) -> ApiKey:
    """The key, which is kept out of all logs and core dumps from now on. Raises `KeyRefused`.

    One that the environment holds is for main, and for those that name no file of their own.
    """
    make_undumpable()
    is_own = config.sandbox.api_key_file != config.sandboxes[MAIN].api_key_file
    key = find_key({} if is_own else environ, config.sandbox.api_key_file)
    keep_out_of_logs(key.reveal())
    return key


def folders_of(config: Config, environ: Mapping[str, str]) -> Directories:
    """The state and cache folders of the workspace, made where missing. Raises `ConfigError`."""
    folders = places_of(config, environ)
    folders.make()
    return folders


def places_of(config: Config, environ: Mapping[str, str]) -> Directories:
    """The same, not made. Raises `ConfigError` for a folder inside the workspace, or around it."""
    folders = directories_for(config.workspace.path, environ)
    for folder in own_folders(environ):
        if os.path.join(config.workspace.path, "").startswith(os.path.join(os.path.realpath(folder), "")):
            raise ConfigError(
                f'workspace.path = "{config.workspace.path}": is in syncd\'s own folder {folder}',
                "choose a directory outside of it, as nothing in it is ever sent",
            )
    for folder in (folders.state, folders.spool):
        if os.path.realpath(folder).startswith(config.workspace.path + os.sep):
            raise ConfigError(  # each line of its own log would be a change
                f'workspace.path = "{config.workspace.path}": holds syncd\'s own folder {folder}',
                "choose a directory without it, or move the folder with XDG_STATE_HOME or XDG_CACHE_HOME",
            )
    return folders


def workspace_of(
    config: Config, environ: Mapping[str, str], key: ApiKey, client: HttpClient, excludes: str | None = None
) -> Workspace:
    """The workspace of a configuration, its folders made where missing. Raises `ConfigError`."""
    folders = folders_of(config, environ)
    db, throttle = StateDb(folders.state), Throttle(config.sync.upload_limit_bytes_per_s)
    return Workspace(config, environ, folders, key, client, db, throttle, excludes)


# Holds the turn to take a snapshot within the context.
Turn = Callable[[Waiter], AbstractContextManager[None]]


class SnapshotParts(Struct):
    """The parts that take the snapshots of one workspace, for one of its sandboxes after the other.

    `on_progress` is called often while a snapshot is taken: by the waiter of the sandbox whose turn it is.
    """

    scanner: Scanner
    guard: LossGuard
    reader: ContentReader
    packer: Packer
    part_packer: Packer
    base_store: BaseStore
    search: Search
    leave_out: Callable[[], LeaveOut]
    turn: Turn
    on_progress: Callable[[], None] = lambda: None

    @contextmanager
    def turn_of(self, waiter: Waiter, on_progress: Callable[[], None]) -> Iterator[None]:
        """Take the snapshots of a sandbox within the context; it is waited for while others do. Raises `Stop`."""
        with self.turn(waiter):
            outer, self.on_progress = self.on_progress, on_progress
            try:
                yield
            finally:
                self.on_progress = outer


def snapshot_parts_of(
    workspace: Workspace,
    scan_listener: ScanListener | None = None,
    *own_keys: str,
    turn: Turn = lambda _: nullcontext(),
) -> SnapshotParts:
    """The parts that take the workspace's snapshots; the keys are those of all its sandboxes. Raises `ConfigError`."""
    config, folders, clock = workspace.config, workspace.folders, workspace.clock
    remove_drafts(folders.state)
    search = secret_search_of(config, *own_keys)

    def check() -> None:
        workspace.waiter.interrupt.check()
        parts.on_progress()

    path, selection = config.workspace.path, selection_of(config, workspace.environ)
    store = ChunkStore(folders.spool)
    store.open()
    base_store = BaseStore(folders.spool, store)
    part_store = ChunkStore(os.path.join(folders.spool, "changes"))
    part_store.keep_only([])  # what an earlier process sent in part is of no use to this one
    excludes = excludes_for(config, workspace.environ) if workspace.excludes is None else workspace.excludes
    guard = LossGuard(path, folders.state)
    guard.load()
    parts = SnapshotParts(
        Scanner(
            path,
            selection,
            scan_listener or ScanListener(),
            check=check,
            personal_excludes=excludes,
            link=config.workspace_link,
            alone=workspace.waiter.tasks.alone,
        ),
        guard,
        ContentReader(path, clock, check, search),
        Packer(path, store, clock, check, search, base_store=base_store),
        Packer(path, part_store, clock, check, search),
        base_store,
        search,
        lambda: PathRules(path, selection, excludes).leave_out,
        turn,
    )
    return parts


def sync_cycle_of(
    workspace: Workspace,
    parts: SnapshotParts,
    on_progress: Callable[[], None] | None = None,
    other_bases: Callable[[], list[Manifest]] = list,
) -> SyncCycle:
    """The sync of one workspace to one sandbox; `on_progress` is called often while it runs, or else the waiter is."""
    on_progress = on_progress or workspace.waiter.poll_events
    config, folders, clock = workspace.config, workspace.folders, workspace.clock
    name = config.sandbox_name
    snapshotter = Snapshotter(
        parts.scanner,
        parts.guard,
        parts.reader,
        parts.packer,
        parts.part_packer,
        clock=clock,
        spool_folder=folders.spool,
        max_mib=config.sync.max_snapshot_mib,
        name=name,
    )

    def check() -> None:
        workspace.waiter.interrupt.check()
        on_progress()

    copies_folder = os.path.join(folders.spool, "copies" if name == MAIN else f"copies-{name}")
    sandbox_factory = SandboxFactory(workspace, parts.search.identity, check, snapshotter.is_excluded, copies_folder)
    return SyncCycle(
        sandbox_factory.provider(),
        sandbox_factory.build,
        snapshotter,
        workspace.db,
        parts.base_store,
        WorkSaver(parts.leave_out, clock, parts.base_store, workspace.db, name),
        clock,
        partial(parts.turn_of, workspace.waiter, on_progress),
        other_bases,
    )


def status_publisher_of(
    workspace: Workspace, totals: RunTotals, role: Role, publish: Callable[[], None]
) -> StatusPublisher:
    """The status of the syncs to one sandbox, which has no id before one is acquired.

    The caller must hold the workspace's lock.
    """
    config, clock, sandbox = workspace.config, workspace.clock, workspace.config.sandbox
    is_shown = role is Role.DAEMON and config.notifications.desktop
    where = config.workspace.path, config.sandbox_name, sandbox.base_url, sandbox.id
    now = SandboxStatus(name=config.sandbox_name, id="", base_url=sandbox.base_url, region=sandbox.region)
    if before := totals.statuses.get(where):
        now = replace(now, id=before.id, **{name: getattr(before, name) for name in TOTALS})
    if target := _known_target(workspace):
        now = now.at(target)
    several = config.sandbox_name if len(config.sandboxes) > 1 else ""
    return StatusPublisher(
        now=now,
        where=where,
        publish=publish,
        recorder=HistoryRecorder(clock, History(workspace.db)),
        notifier=DesktopNotifier(config.workspace.path, workspace.environ if is_shown else None, clock, several),
        clock=clock,
    )


def keys_of(config: Config, environ: Mapping[str, str]) -> dict[str, ApiKey | KeyRefused]:
    """The key of each sandbox, by name, or why there is none. Raises `KeyRefused` if no sandbox has one."""
    keys: dict[str, ApiKey | KeyRefused] = {}
    for name in config.sandboxes:
        try:
            keys[name] = key_of(config.for_sandbox(name), environ)
        except KeyRefused as failure:
            keys[name] = failure
    refused = [key for key in keys.values() if isinstance(key, KeyRefused)]
    if len(refused) == len(keys):
        raise refused[0]
    return keys


class _Assembly(Struct):
    """The parts of one daemon that those of its sandboxes are made with, at the start and when one is added.

    `workspace` is that of main, whose configuration has all sandboxes.
    """

    workspace: Workspace
    role: Role
    read: Callable[[], Config]
    stack: ExitStack
    shared: SharedState
    keys: Mapping[str, ApiKey | KeyRefused]
    searched: frozenset[str]  # the keys that files are searched for
    parts: SnapshotParts | None = None

    def client(self) -> HttpClient:
        """Return connections that wait by themselves."""
        waiter = self.workspace.waiter
        client = HttpClient(Waiter(waiter.interrupt, waiter.clock, waiter.tasks))
        self.stack.callback(client.drop)
        return client

    def open_workspace(self, name: str, key: ApiKey | KeyRefused) -> Workspace:
        """Return the workspace with the parts of one sandbox, whose status is shown from now on."""
        main, status = self.workspace, self.shared.status
        client = main.client if name == MAIN else self.client()
        usable = main.key if isinstance(key, KeyRefused) else key
        workspace = replace(main, config=main.config.for_sandbox(name), key=usable, client=client)
        status.publishers.append(status_publisher_of(workspace, status.totals, self.role, status.write))
        return workspace

    def loop_of(self, workspace: Workspace, key: ApiKey | KeyRefused) -> SandboxLoop:
        """Return the loop of the sandbox whose workspace was opened."""
        assert self.parts is not None  # noqa: S101 - it is made with the first workspace
        config = workspace.config
        other_bases = partial(self.shared.other_bases, config.sandbox_name)
        cycle = sync_cycle_of(workspace, self.parts, other_bases=other_bases)
        if isinstance(key, KeyRefused):
            cycle.provider = SandboxProvider(cycle.provider.known, key)
        cycle.recall()
        publisher = next(each for each in self.shared.status.publishers if each.now.name == config.sandbox_name)
        follows = self.role is Role.DAEMON and config.sandbox.follow_seconds > 0
        follower = partial(self._follower_of, workspace) if follows else None
        setup = partial(self._setup_of, workspace) if config.sandbox.setup else None
        parts = LoopParts(workspace, cycle, publisher, McpServers(workspace.api), follower, setup)
        return SandboxLoop(parts, self.shared)

    def _setup_of(self, syncing: Workspace, sandbox: SetupSandbox) -> SetupTask:
        """Return what sets a sandbox up, with connections and waits of its own."""
        workspace = replace(syncing, client=self.client())
        return SetupTask(workspace.waiter, workspace.setup_run, sandbox)

    def _follower_of(self, syncing: Workspace, sandbox: FollowedSandbox) -> Follower:
        """Return what follows the agent in a sandbox, with connections and waits of its own."""
        assert self.parts is not None  # noqa: S101 - it is made with the first workspace
        workspace, config, parts = replace(syncing, client=self.client()), syncing.config, self.parts
        waiter = workspace.waiter
        copies_folder = os.path.join(workspace.folders.spool, f"follow-{config.sandbox_name}")
        factory = SandboxFactory(workspace, parts.search.identity, waiter.poll_events, _excludes_nothing, copies_folder)
        commits = FollowedCommits(
            config.workspace.path,
            config.sandbox_name,
            workspace.db,
            parts.base_store,
            environ=workspace.environ,
            secrets=ContentReader(config.workspace.path, waiter.clock, search=parts.search).secrets,
            waiter=waiter,
        )
        scratch = os.path.join(copies_folder, "sent")
        follow_s = config.sandbox.follow_seconds
        return Follower(
            FollowerParts(
                workspace.client,
                workspace.api_limit,
                follow_s,
                factory.looks_at,
                parts.leave_out,
                parts.base_store,
                commits,
                scratch,
            ),
            sandbox,
        )

    def left(self) -> list[LeftSandbox]:
        """Forget the sandboxes that the configuration has no more, and return those whose work is to be saved before.

        These were acquired, so they end by themselves.
        """
        main, db = self.workspace, self.workspace.db
        known = {each.name for each in self.shared.left}
        found = []
        with suppress(OSError):  # the next process tries again
            for name in recorded_names(db) - main.config.sandboxes.keys() - known - {MAIN}:
                target = last_target(db, name)
                own = None if target is None else config_of_left(main.config, name, target)
                acquired = None if own is None else acquired_of(own, main.folders.state)
                if target is None or own is None or acquired is None or acquired.sandbox_id != target.sandbox_id:
                    forget_left(db, name, main.clock)
                else:
                    found.append(self._left_sandbox(own, target))
        return found

    def _left_sandbox(self, config: Config, target: Target) -> LeftSandbox:
        assert self.parts is not None  # noqa: S101 - it is made with the first workspace
        name, client, parts = config.sandbox_name, self.client(), self.parts
        folders, db, clock = self.workspace.folders, self.workspace.db, self.workspace.clock
        workspace = replace(self.workspace, config=config, client=client)
        copies_folder, check = os.path.join(folders.spool, f"left-{name}"), client.waiter.poll_events

        def services() -> SandboxServices:
            key, base_url = self.keys[MAIN], self.workspace.config.sandboxes[MAIN].base_url
            if isinstance(key, KeyRefused):
                raise key
            if target.base_url != base_url:  # no key goes to another server than the one that it is for
                what = f"nobody can ask it, as its API is {target.base_url}, and not that of [sandbox]"
                raise ConfigError(what, f"put the table [sandboxes.{name}] back, and run `syncd sandbox remove {name}`")
            keyed, searched = replace(workspace, key=key), parts.search.identity
            return SandboxFactory(keyed, searched, check, _excludes_nothing, copies_folder).build(target)

        def forget() -> None:
            forget_left(db, name, clock)
            AcquiredSandboxStore(config, folders.state).save(None, [])

        return LeftSandbox(
            name,
            target,
            services,
            WorkSaver(parts.leave_out, clock, parts.base_store, db, name),
            client.waiter,
            lambda: self.shared.reload or name in self.workspace.config.sandboxes,
            forget,
            self.shared.recall,
        )

    def change_sandboxes(self) -> SandboxChanges | None:
        """Take over a configuration that has other sandboxes; None if more has changed, or it cannot be used."""
        main, shared = self.workspace, self.shared
        try:
            new = self.read()
            added = [name for name in new.sandboxes if name not in main.config.sandboxes]
            keys = {name: key_of(new.for_sandbox(name), main.environ) for name in added}
        except SyncdError:
            return None
        # With a key that files are not searched for, all begins anew.
        is_searched = {key.reveal() for key in keys.values()} <= self.searched
        if not is_searched or not has_other_sandboxes(new, main.config):
            return None
        removed = tuple(main.config.sandboxes.keys() - new.sandboxes.keys())
        self.workspace = replace(main, config=new)
        self.keys = {name: keys.get(name) or self.keys[name] for name in new.sandboxes}
        shared.status.publishers = [each for each in shared.status.publishers if each.now.name not in removed]
        shared.synced_hook.configure(new, main.folders.state)
        loops = [self.loop_of(self.open_workspace(name, key), key) for name, key in keys.items()]
        _log.info("configuration read anew: the sandboxes are %s", ", ".join(new.sandboxes))
        return SandboxChanges(tuple(loops), removed, tuple(self.left()), new, self.keys)


@contextmanager
def daemon_of(
    config: Config,
    role: Role,
    *,
    keys: Mapping[str, ApiKey | KeyRefused],
    environ: Mapping[str, str],
    waiter: Waiter,
    signals: Signals,
    totals: RunTotals,
    synced_hook: SyncedHook,
    excludes: str | None = None,
    reread: Callable[[], Config] | None = None,
    refused: str = "",
) -> Iterator[Daemon]:
    """A daemon whose parts are open, and closed after it; `reread` reads the configuration file again.

    `refused` is why it was not given the configuration that the file has now, for its status.

    That of a command has its status and history as well, but watches nothing, listens to nobody and tells no service
    manager or desktop.

    Raises `Locked` if another instance has the workspace, `NeedsPerson` where the configuration cannot work.
    """
    with ExitStack() as stack:
        folders = folders_of(config, environ)
        lock = Lock(folders.state)
        lock.acquire()
        stack.callback(lock.release)
        db = StateDb(folders.state)
        stack.callback(db.close)
        client = HttpClient(Waiter(waiter.interrupt, waiter.clock, waiter.tasks))
        stack.callback(client.drop)
        clock, is_daemon, path = waiter.clock, role is Role.DAEMON, config.workspace.path
        systemd = SystemdNotifier(environ if is_daemon else {}, clock, os.getpid())
        pid = os.getpid() if is_daemon else None
        shared = SharedState(
            InotifyWatch(path, clock),
            SuspendDetector(clock),
            ControlServer(folders.state),
            signals,
            synced_hook,
            WorkspaceStatus(path, config.workspace_link, folders.state, systemd, totals, pid, config.file, refused),
            systemd,
            clock,
            waiter.tasks,
            rescan_at_s=clock.monotonic_s(),
            is_state_lost=lambda: is_daemon and lock.is_lost and _can_be_made(folders),
            was_there=os.path.isdir(path),
        )
        throttle, first_archives = Throttle(config.sync.upload_limit_bytes_per_s), FirstArchives()
        main = Workspace(config, environ, folders, ApiKey("", ""), client, db, throttle, excludes, first_archives)
        searched = frozenset(key.reveal() for key in keys.values() if isinstance(key, ApiKey))
        assembly = _Assembly(main, role, reread or (lambda: config), stack, shared, keys, searched)
        workspaces = [assembly.open_workspace(name, key) for name, key in keys.items()]
        shared.status.recall()
        # Before all else, which may take a while (watches, git, large state): until then `syncd status` would show a
        # process without a status.
        for publisher in shared.status.publishers:
            publisher.enter(State.STARTING, pending=True)
        stack.callback(shared.status.ended)
        if is_daemon:
            for resource in (shared.watch, shared.suspend_detector, shared.control):
                resource.open()
                stack.callback(resource.close)
        listener = shared.watch if is_daemon else None
        assembly.parts = snapshot_parts_of(main, listener, *searched, turn=shared.snapshot_turn)
        synced_hook.configure(config, folders.state)
        loops = [assembly.loop_of(each, keys[each.config.sandbox_name]) for each in workspaces]
        shared.left = assembly.left()
        yield Daemon(shared, loops, assembly.change_sandboxes)


def _can_be_made(folders: Directories) -> bool:
    with suppress(ConfigError):
        folders.make()
        return True
    return False


def has_other_sandboxes(new: Config, old: Config) -> bool:
    """True if a configuration differs only by sandboxes that it has more, or has no more."""
    kept = new.sandboxes.keys() & old.sandboxes.keys()
    is_same = all(new.sandboxes[name] == old.sandboxes[name] for name in kept)
    alike = replace(new, sandboxes=old.sandboxes, sandbox=old.sandbox)
    return new != old and is_same and alike == old and old.sandbox_name in kept


def config_of_left(config: Config, name: str, target: Target) -> Config:
    """The configuration of an acquired sandbox whose table is gone: that of main, but for what is known of it."""
    main = config.sandboxes[MAIN]
    keys = replace(main, id=None, acquire=AcquireKeys(), base_url=target.base_url, region=target.region)
    return replace(config, sandbox=keys, sandbox_name=name)


def forget_left(db: StateDb, name: str, clock: Clock) -> None:
    """Forget a name that the configuration has no more: one that is added again is a new sandbox.

    What was followed there is saved before. Raises `OSError`.
    """
    target = last_target(db, name)
    if target is not None:
        save_left(db, target, SavedVersions(db, clock, name))
    forget_name(db, name)


def _excludes_nothing(_path: str, _is_dir: bool) -> bool:
    """Exclude no path."""
    return False
