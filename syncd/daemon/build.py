"""Makes, opens and connects the parts of a daemon, and of commands that sync by themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from msgspec.structs import replace

from syncd.core.api_key import ApiKey, find_key
from syncd.core.choices import GitThere
from syncd.core.clock import Clock
from syncd.core.config_file import edits, own_files, own_folders
from syncd.core.directories import Directories, Lock, directories_for
from syncd.core.durable_file import PauseMarker, file_stamp
from syncd.core.errors import ConfigError, KeyRefused, NeedsPerson
from syncd.core.process import make_undumpable
from syncd.core.settings import MAIN, Config, table_of
from syncd.core.signals import Signals
from syncd.core.waiter import Waiter
from syncd.daemon.agenda import SharedState
from syncd.daemon.control import ControlServer
from syncd.daemon.loop import Daemon
from syncd.daemon.removed_sandbox import RemovedSandbox, removed_configs
from syncd.daemon.sandbox_loop import SandboxLoop
from syncd.merge.git import personal_excludes
from syncd.remote.bucket import Throttle
from syncd.remote.failure import ApiLimit
from syncd.remote.http_client import HttpClient
from syncd.remote.target import Target
from syncd.report.logs import keep_out_of_logs
from syncd.report.status_publisher import RunFacts, WorkspaceStatus
from syncd.sandbox.provider import acquired_of
from syncd.scan.file_reader import ContentReader
from syncd.selection.gitignore import bad_pattern
from syncd.selection.secret_scanner import SecretSearch
from syncd.selection.selection import Selection
from syncd.store.state_db import StateDb
from syncd.sync.delivery import FirstArchives
from syncd.sync.sandbox import Access
from syncd.sync.status_document import SandboxStatus, State
from syncd.sync.synced_hook import SyncedHook
from syncd.sync.workspace import Workspace
from syncd.watch.changes import DirtyDirectories, ScanListener
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.suspend_detector import SuspendDetector


def known_target(config: Config, environ: Mapping[str, str]) -> Target | None:
    """The sandbox of this configuration's workspace; None where none has been acquired yet."""
    sandbox = config.sandbox
    if sandbox.id is not None:
        return Target(sandbox.base_url, sandbox.id, sandbox.region)
    acquired = acquired_of(config, places_of(config, environ).state)
    return None if acquired is None else Target(sandbox.base_url, acquired.sandbox_id, sandbox.region)


def target_of(config: Config, environ: Mapping[str, str]) -> Target:
    """The same. Raises `NeedsPerson` where none has been acquired yet."""
    if (target := known_target(config, environ)) is None:
        raise NeedsPerson("no sandbox has been acquired yet", "run `syncd sandbox acquire`, or `syncd push`")
    return target


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
                hint = f"write it as in a .gitignore file; {edits(config.file)}"
                raise ConfigError(f"{name} = [{pattern!r}]: {why}", hint)
    for pattern in keys.allow_secrets:
        if pattern.startswith("!"):
            hint = f"name what is allowed only; {edits(config.file)}"
            raise ConfigError(f"workspace.allow_secrets = [{pattern!r}]: allows nothing", hint)
    return Selection(
        ignore=keys.ignore,
        use_gitignore=keys.use_gitignore,
        include_git=keys.git is GitThere.RAW,
        upload_secrets=keys.upload_secrets,
        allow_secrets=keys.allow_secrets,
        own_folders=own_folders(environ),
        own_files=partial(own_files, config, environ),
    )


def secret_search_of(config: Config, *own_keys: str) -> SecretSearch | None:
    """The search for secrets in contents; None for a configuration that uploads them."""
    keys = config.workspace
    return None if keys.upload_secrets else SecretSearch(keys.allow_secrets, *own_keys)


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
                f"choose a directory outside of it, as nothing in it is ever sent; {edits(config.file)}",
            )
    for folder in (folders.state, folders.spool):
        if os.path.realpath(folder).startswith(config.workspace.path + os.sep):
            raise ConfigError(  # each line of its own log would be a change
                f'workspace.path = "{config.workspace.path}": holds syncd\'s own folder {folder}',
                "choose a directory without it, or move the folder with XDG_STATE_HOME or XDG_CACHE_HOME;"
                f" {edits(config.file)}",
            )
    return folders


def access_of(config: Config, environ: Mapping[str, str], key: ApiKey, client: HttpClient) -> Access:
    """The access to the sandbox of a configuration, the folders made where missing. Raises `ConfigError`."""
    folders = folders_of(config, environ)
    throttle = Throttle(config.sync.upload_limit_kib_per_second << 10)
    return Access(config, folders, StateDb(folders.state), key, client, throttle)


def workspace_of(
    config: Config,
    environ: Mapping[str, str],
    waiter: Waiter,
    *own_keys: str,
    excludes: str | None = None,
    listener: ScanListener | None = None,
) -> Workspace:
    """The workspace of a configuration, its folders made where missing; the keys are those of all its sandboxes.

    `excludes` is the path of the person's own exclude file, None where git is still to be asked. Raises `ConfigError`.
    """
    return Workspace(
        config,
        folders_of(config, environ),
        waiter,
        environ,
        selection=selection_of(config, environ),
        search=secret_search_of(config, *own_keys),
        excludes=excludes_for(config, environ) if excludes is None else excludes,
        listener=listener,
    )


def status_of(access: Access) -> SandboxStatus:
    """The status of a sandbox before anything was synced; it has no id before one is acquired."""
    sandbox, target = access.config.sandbox, access.provider().known
    name, base_url, region = access.config.sandbox_name, sandbox.base_url, sandbox.region
    status = SandboxStatus(name=name, id="", base_url=base_url, region=region, pending=True)  # until a scan was made
    return status if target is None else status.at(target)


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


@contextmanager
def daemon_of(
    config: Config,
    run: RunFacts,
    *,
    keys: Mapping[str, ApiKey | KeyRefused],
    environ: Mapping[str, str],
    waiter: Waiter,
    signals: Signals,
    synced_hook: SyncedHook,
    excludes: str | None = None,
) -> Iterator[Daemon]:
    """A daemon whose parts are open, and closed after it.

    That of a command has its status and history as well, but watches nothing, listens to nobody and tells no service
    manager or desktop.

    Raises `Locked` if another instance has the workspace, `NeedsPerson` where the configuration cannot work.
    """
    with ExitStack() as stack:
        folders = folders_of(config, environ)
        lock = stack.enter_context(Lock(folders.state))
        db = StateDb(folders.state)
        stack.callback(db.close)
        clock, path = waiter.clock, config.workspace.path
        watch, throttle = InotifyWatch(path, clock), Throttle(config.sync.upload_limit_kib_per_second << 10)
        first_archives, api_limit, clients = FirstArchives(), ApiLimit(), list[HttpClient]()

        def access(name: str) -> Access:
            """Return an access to this sandbox with connections of its own."""
            key, own = keys[name], config.for_sandbox(name)
            usable, refusal = (key, None) if isinstance(key, ApiKey) else (ApiKey("", ""), key)
            client = HttpClient(Waiter(waiter.interrupt, clock, waiter.tasks))
            stack.callback(client.drop)
            clients.append(client)
            return Access(own, folders, db, usable, client, throttle, first_archives, api_limit, refusal)

        accesses = [access(name) for name in config.sandboxes]
        sandboxes = [status_of(each) for each in accesses]
        status = WorkspaceStatus(config, folders.state, run, clock=clock, environ=environ, sandboxes=sandboxes)
        status.recall()
        # Before all else, which may take a while (watches, git, large state): until then `syncd status` would show a
        # process without a status.
        for publisher in status.publishers:
            publisher.enter(State.STARTING)
        stack.callback(status.ended)
        suspend_detector, control = SuspendDetector(clock), ControlServer(folders.state)
        if run.pid is not None:
            for resource in (watch, suspend_detector, control):
                resource.open()
                stack.callback(resource.close)
        searched = [key.reveal() for key in keys.values() if isinstance(key, ApiKey)]
        listener = watch if run.pid is not None else None
        workspace = workspace_of(config, environ, waiter, *searched, excludes=excludes, listener=listener)
        synced_hook.configure(config, folders.state)
        removed = [
            RemovedSandbox(replace(access(MAIN), config=own), target, workspace)
            for own, target in removed_configs(config, folders.state, db, clock)
        ]
        dirty = DirtyDirectories(config.sync.rescan_minutes * 60)
        was_there, paused = os.path.isdir(path), PauseMarker(folders.state).exists
        shared = SharedState(workspace, watch, synced_hook, status, removed, dirty, was_there, paused)
        key_files = (each.api_key_file for each in config.sandboxes.values())
        run.key_stamps = {file: run.key_stamps.get(file, file_stamp(file)) for file in key_files}
        loops = [
            SandboxLoop(each, shared, publisher, partial(access, publisher.now.name))
            for each, publisher in zip(accesses, status.publishers, strict=True)
        ]
        for loop in loops:
            loop.cycle.recall()
        yield Daemon(shared, loops, lock, clients, suspend_detector, control, signals)
