"""Where the parts are opened and put together; everything else only gets them handed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from syncd.archive.chunk_store import ChunkStore
from syncd.archive.packer import Packer
from syncd.archive.snapshotter import Photographer
from syncd.core.api_key import ApiKey, find_key
from syncd.core.clock import Clock
from syncd.core.context import Surroundings
from syncd.core.directories import Folders, folders_for
from syncd.core.durable_file import remove_drafts
from syncd.core.errors import ConfigError, KeyRefused, NeedsPerson
from syncd.core.hardening import close_memory
from syncd.core.lock import Lock
from syncd.core.settings import Config
from syncd.core.waiter import Waiter
from syncd.daemon.components import Parts, Timing
from syncd.daemon.control import ControlServer
from syncd.daemon.live_reload import Revision, limit_of
from syncd.daemon.loop import Daemon
from syncd.daemon.pause_file import PauseFile
from syncd.daemon.signals import Signals
from syncd.daemon.wakeup import Wakeup
from syncd.remote.acquired_sandbox import is_over
from syncd.remote.bucket import Throttle
from syncd.remote.http_client import Exchanger
from syncd.remote.target import Target
from syncd.report.desktop import Desktop
from syncd.report.desktop_notifier import Herald
from syncd.report.history_recorder import Chronicle
from syncd.report.history_store import HistoryFile
from syncd.report.logs import keep_out_of_logs
from syncd.report.notification_store import NoticeFile
from syncd.report.status_publisher import Board, Tally
from syncd.report.status_store import StatusFile
from syncd.report.systemd_notify import ServiceManager
from syncd.sandbox.agent_notifier import liaison_of
from syncd.sandbox.provider import TenancyFile
from syncd.scan.disaster_guard import Sentry
from syncd.scan.file_reader import ContentReader
from syncd.scan.scanner import Scanner
from syncd.selection.git_config import personal_excludes
from syncd.selection.gitignore import bad_pattern
from syncd.selection.secret_scanner import NoSearch, Search, SecretSearch
from syncd.selection.selection import Selection, SelectionSettings
from syncd.sync.sandbox_factory import Furnisher, patience_of
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import Cycle
from syncd.sync.sync_state import Journal
from syncd.watch.interface import watcher
from syncd.watch.mounts import MountSensor
from syncd.watch.scan_listener import Coverage, NoCoverage
from syncd.watch.suspend_detector import SleepSensor


def target_of(config: Config, environ: Mapping[str, str]) -> Target:
    """Where this configuration's workspace goes now. Raises `NeedsPerson` where no sandbox has been acquired yet."""
    sandbox = config.sandbox
    if sandbox.id is not None:
        return Target(sandbox.base_url, sandbox.id, sandbox.region)
    tenancy, _ = TenancyFile(places_of(config, environ).state, sandbox.base_url).load()
    if tenancy is None:
        raise NeedsPerson("no sandbox has been acquired yet", "run `syncd push`, or start the daemon")
    return Target(sandbox.base_url, tenancy.sandbox_id, sandbox.region)


def _known_target(config: Config, folders: Folders, clock: Clock) -> Target | None:
    """Where it goes as far as that is known at home: a sandbox that was acquired may have ended."""
    sandbox = config.sandbox
    if sandbox.id is not None:
        return Target(sandbox.base_url, sandbox.id, sandbox.region)
    tenancy, _ = TenancyFile(folders.state, sandbox.base_url).load()
    if tenancy is None or is_over(tenancy, clock.wall_s()):
        return None
    return Target(sandbox.base_url, tenancy.sandbox_id, sandbox.region)


def selection_of(config: Config) -> Selection:
    """What belongs, as `[workspace]` says. Raises `ConfigError` for a pattern that can match nothing."""
    keys = config.workspace
    for name, patterns in (("ignore", keys.ignore), ("allow_secrets", keys.allow_secrets)):
        for pattern in patterns:
            why = bad_pattern(pattern)
            if why is not None:
                raise ConfigError(f"workspace.{name} = [{pattern!r}]: {why}", "write it as in a .gitignore file")
    for pattern in keys.allow_secrets:
        if pattern.startswith("!"):
            raise ConfigError(f"workspace.allow_secrets = [{pattern!r}]: allows nothing", "name what is allowed only")
    return Selection(
        SelectionSettings(
            ignore=keys.ignore,
            use_gitignore=keys.use_gitignore,
            include_git=keys.include_git,
            upload_secrets=keys.upload_secrets,
            allow_secrets=keys.allow_secrets,
        )
    )


def search_of(config: Config, own_key: str = "") -> Search:
    """How contents are searched for secrets."""
    keys = config.workspace
    return NoSearch() if keys.upload_secrets else SecretSearch(keys.allow_secrets, own_key)


def reader_of(config: Config, clock: Clock, environ: Mapping[str, str]) -> ContentReader:
    """Reads contents for commands that ask no server: where no key is to be had, it is not looked for."""
    own_key = ""
    with suppress(KeyRefused):
        own_key = key_of(config, environ).reveal()
    return ContentReader(config.workspace.path, clock, search=search_of(config, own_key))


def excludes_of(config: Config, around: Surroundings) -> str:
    """The path of the person's own exclude file, where git's rules count. Raises `ConfigError`, `TryLater`."""
    if not config.workspace.use_gitignore or around.excludes is None:
        return excludes_for(config, around.environ)
    return around.excludes


def excludes_for(config: Config, environ: Mapping[str, str]) -> str:
    """As git says now. Raises `ConfigError`, `TryLater`."""
    return personal_excludes(environ) if config.workspace.use_gitignore else ""


def key_of(config: Config, environ: Mapping[str, str]) -> ApiKey:
    """The key, kept out of all logs from now on, and in this process. Raises `KeyRefused`."""
    close_memory()
    key = find_key(environ, config.sandbox.api_key_file)
    keep_out_of_logs(key.reveal())
    return key


def folders_of(config: Config, environ: Mapping[str, str]) -> Folders:
    """The workspace's own folders, made where missing. Raises `ConfigError`."""
    folders = places_of(config, environ)
    folders.make()
    return folders


def places_of(config: Config, environ: Mapping[str, str]) -> Folders:
    """Where the workspace's own folders are or will be. Raises `ConfigError` for a place inside the workspace."""
    folders = folders_for(config.workspace.path, environ)
    for folder in (folders.state, folders.spool):
        if os.path.realpath(folder).startswith(config.workspace.path + os.sep):
            raise ConfigError(  # each line of its own log would be a change
                f'workspace.path = "{config.workspace.path}": holds syncd\'s own folder {folder}',
                "choose a directory without it, or move the folder with XDG_STATE_HOME or XDG_CACHE_HOME",
            )
    return folders


def cycle_of(
    config: Config,
    folders: Folders,
    *,
    key: ApiKey,
    around: Surroundings,
    exchanger: Exchanger,
    throttle: Throttle | None = None,
    coverage: Coverage | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Cycle:
    """The sync of one workspace to its sandbox; `on_progress` is called all the time. Raises `ConfigError`."""
    remove_drafts(folders.state)
    search = search_of(config, key.reveal())
    journal = Journal(folders.state, search.identity)

    def check() -> None:
        around.interrupt.check()
        on_progress()

    path = config.workspace.path
    store = ChunkStore(folders.spool)
    store.open()
    part_store = ChunkStore(os.path.join(folders.spool, "changes"))
    part_store.keep_only([])  # what an earlier process sent in part is of no use to this one
    sentry = Sentry(folders.state)
    sentry.recall()
    photographer = Photographer(
        Scanner(
            path,
            selection_of(config),
            coverage or NoCoverage(),
            check=check,
            personal_excludes=excludes_of(config, around),
        ),
        sentry,
        ContentReader(path, around.clock, check, search),
        Packer(path, store, around.clock, check, search),
        Packer(path, part_store, around.clock, check, search),
        spool_folder=folders.spool,
        max_mib=config.sync.max_snapshot_mib,
    )
    throttle = throttle or Throttle(limit_of(config))
    furnisher = Furnisher(config, folders, key, around, exchanger, throttle, journal, check, photographer.stays_home)
    return Cycle(furnisher.lodging(), furnisher.furnish, photographer, journal, around.clock)


def board_of(
    config: Config,
    folders: Folders,
    around: Surroundings,
    *,
    tally: Tally,
    manager: ServiceManager,
    target: Target | None,
) -> Board:
    """The status of this workspace; the sandbox has no name before one was acquired."""
    clock = around.clock
    tally.is_for(config.workspace.path, config.sandbox.base_url, config.sandbox.id)
    herald = Herald(
        config.workspace.path,
        config.notifications.after_minutes * 60,
        desktop=Desktop(around.environ, clock) if config.notifications.desktop else None,
        file=NoticeFile(folders.state, clock),
        clock=clock,
    )
    board = Board(
        workspace=config.workspace.path,
        target=target or Target(config.sandbox.base_url, "", config.sandbox.region),
        file=StatusFile(folders.state),
        manager=manager,
        chronicle=Chronicle(clock, HistoryFile(folders.state), lambda: board.target.sandbox_id),
        herald=herald,
        clock=clock,
        tally=tally,
    )
    return board


@contextmanager
def daemon_of(
    config: Config,
    *,
    key: ApiKey,
    around: Surroundings,
    signals: Signals,
    wakeup: Wakeup,
    tally: Tally,
    reread: Callable[[], Config] | None = None,
) -> Iterator[Daemon]:
    """A daemon with everything open that it works with, and closed after it; `reread` tells what the file says now.

    Raises `Locked` if another instance has the workspace, `NeedsPerson` where the configuration cannot work.
    """
    with ExitStack() as opened:
        folders = folders_of(config, around.environ)
        lock = Lock(folders.state)
        lock.acquire()
        opened.callback(lock.release)
        manager = ServiceManager(around.environ, around.clock, os.getpid())
        target = _known_target(config, folders, around.clock)
        board = board_of(config, folders, around, tally=tally, manager=manager, target=target)
        board.recall()
        # Before all else, which may take a while (watches, git, large state): whoever asks meanwhile is not to take
        # this for a process that shows no status.
        board.pending = True
        board.enter(State.STARTING)
        opened.callback(board.ended)
        waiter = Waiter(around.interrupt, around.clock)
        exchanger = Exchanger(waiter)
        opened.callback(exchanger.drop)
        watch = watcher(config.workspace.path, wakeup.ring)
        watch.open()
        opened.callback(watch.close)
        sensor = SleepSensor(around.clock)
        sensor.open()
        opened.callback(sensor.close)
        mounts = MountSensor(config.workspace.path)
        mounts.open()
        opened.callback(mounts.close)
        control = ControlServer(folders.state)
        control.open()
        opened.callback(control.close)
        throttle = Throttle(limit_of(config))
        cycle = cycle_of(
            config,
            folders,
            key=key,
            around=around,
            exchanger=exchanger,
            throttle=throttle,
            coverage=watch,
            on_progress=waiter.glance,
        )
        cycle.recall()
        liaison = liaison_of(config, folders, key=key, around=around, exchanger=exchanger)
        opened.callback(liaison.close)
        yield Daemon(
            Parts(
                cycle=cycle,
                watch=watch,
                control=control,
                board=board,
                liaison=liaison,
                manager=manager,
                signals=signals,
                revision=Revision(config, reread or (lambda: config), throttle, signals),
                wakeup=wakeup,
                waiter=waiter,
                sensor=sensor,
                mounts=mounts,
                exchanger=exchanger,
                pause_file=PauseFile(folders.state),
                clock=around.clock,
                timing=Timing(
                    config.sync.debounce_seconds, config.sync.max_wait_seconds, config.sync.rescan_minutes * 60
                ),
                patience=patience_of(config),
                key_file=config.sandbox.api_key_file,
            )
        )
