"""`syncd sandbox`: lists, shows, acquires and releases the account's sandboxes.

Text from a server is not trusted: none of it reaches a terminal unescaped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.cli.config import change_config, with_sandbox, without_sandbox
from syncd.cli.daemon_client import order_daemon
from syncd.cli.layout import aligned
from syncd.cli.options import (
    CLOCK,
    config_option,
    config_path,
    configured,
    confirmed,
    json_option,
    of_sandbox,
    option_for,
    sandbox_option,
)
from syncd.core.api_key import ApiKey
from syncd.core.choices import AgentChanges
from syncd.core.clock import seconds_of
from syncd.core.directories import Directories, Lock, holder
from syncd.core.errors import Locked, NeedsPerson, SandboxNotFound, Stop, SyncdError, TryLater
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.settings import MAIN, AcquireKeys, Config, check_name, table_of
from syncd.core.text import ago, duration, one_line
from syncd.core.waiter import Waiter
from syncd.daemon.build import folders_of, key_of
from syncd.daemon.shared_sandbox import conflict, others_naming
from syncd.remote.api import Account, Api, SandboxInfo, urls_by_name
from syncd.remote.failure import StepFailed
from syncd.remote.http_client import HttpClient
from syncd.remote.target import AcquiredSandbox, Target, should_be_replaced
from syncd.report.logs import LogFormat, set_up_logs
from syncd.report.status_publisher import ends_at
from syncd.report.status_store import forget_released
from syncd.sandbox.mcp_servers import callable_servers
from syncd.sandbox.provider import AcquiredSandboxStore, AcquiringProvider
from syncd.sandbox.sandbox_state import SandboxState
from syncd.store.state_db import StateDb
from syncd.sync.sandbox import retry_settings_of


class SandboxAdmin(Struct, frozen=True):
    """The account of one configuration, with its workspace's sandbox."""

    config: Config
    folders: Directories
    key: ApiKey
    client: HttpClient
    account: Account
    store: AcquiredSandboxStore

    @property
    def fixed(self) -> bool:
        """True if the configuration names the sandbox."""
        return self.config.sandbox.id is not None

    @property
    def all_acquired(self) -> dict[str, AcquiredSandbox]:
        """The workspace's sandboxes that syncd acquired, by their names in the configuration."""
        own = [self.config.for_sandbox(name) for name, each in self.config.sandboxes.items() if each.id is None]
        found = {each.sandbox_name: AcquiredSandboxStore(each, self.folders.state).load()[0] for each in own}
        return {name: one for name, one in found.items() if one is not None}

    @property
    def acquired(self) -> AcquiredSandbox | None:
        """This workspace's sandbox, if syncd acquired it."""
        return None if self.fixed else self.store.load()[0]

    @property
    def ours(self) -> str | None:
        """The id of this workspace's sandbox; None if there is none yet."""
        acquired = self.acquired
        return self.config.sandbox.id if acquired is None else acquired.sandbox_id

    def resolve(self, sandbox_id: str | None) -> str:
        """Return the given id, by default this workspace's. Raises `NeedsPerson` if there is none yet."""
        if sandbox_id in ("", ".", ".."):
            raise click.UsageError(f"{sandbox_id!r} is no sandbox's id.")
        if sandbox_id is not None:
            return sandbox_id
        if self.ours is None:
            raise NeedsPerson("no sandbox has been acquired yet", "run `syncd sandbox acquire`, or `syncd push`")
        return self.ours

    def api(self, sandbox_id: str) -> Api:
        sandbox = self.config.sandbox
        target = Target(sandbox.base_url, sandbox_id, sandbox.region)
        return Api(target, self.key, self.client, table_of(self.config.sandbox_name))

    def current(self) -> AcquiredSandbox | None:
        """Return this workspace's acquired sandbox, if it still exists. Raises `StepFailed`."""
        acquired = self.acquired
        if acquired is None or should_be_replaced(acquired, CLOCK.wall_s()):
            return None
        try:
            self.api(acquired.sandbox_id).sandbox()
        except StepFailed as failure:
            if failure.refusal is not SandboxNotFound:
                raise
            return None
        return acquired

    def acquire(self) -> AcquiredSandbox:
        """Acquire one more, counted with those that syncs acquire. Raises `SyncdError`, `StepFailed`, `Stop`."""
        sandbox = replace(self.config.sandbox, acquire=self.config.sandbox.acquire or AcquireKeys())
        with self._locked():
            provider = AcquiringProvider(self.account, self.store, sandbox, retry_settings_of(self.config), CLOCK)
            acquired = provider.acquire(
                lambda failure, wait_s: click.echo(f"{failure}; trying again in {wait_s:.1f} s", err=True),
                self.client.waiter.sleep,
            )
            if self.fixed:
                provider.abandon()  # it is for a person: a later [sandbox.acquire] must not sync to it
            return acquired

    def after_release(self, sandbox_id: str) -> str:
        """Describe in a sentence how syncing goes on once that sandbox is released."""
        if sandbox_id != self.ours:
            return ""
        running = holder(self.folders.state) is not None
        if self.fixed:
            held = " The daemon holds it until then." if running else ""
            table = "sandbox" if self.config.sandbox_name == MAIN else table_of(self.config.sandbox_name)
            return f"Nothing more can be synced there before {table}.id names another one.{held}"
        if running:
            return "The daemon acquires the next one and fills it."
        return "The next sync acquires another one."

    def forget(self, sandbox_id: str) -> None:
        """Have nothing count as synced to this released sandbox, and an acquired one replaced.

        Raises `TryLater` if the daemon cannot be reached.
        """
        if sandbox_id != self.ours:
            return
        with contextlib.suppress(OSError), contextlib.closing(StateDb(self.folders.state)) as db:
            target = Target(self.config.sandbox.base_url, sandbox_id, self.config.sandbox.region)
            SandboxState(db, target, name=self.config.sandbox_name).mark_released()
        if order_daemon(self.config, {"do": "left", "id": sandbox_id}) or self.fixed:
            return
        with contextlib.suppress(TryLater, OSError), self._locked():
            self.store.save(None, self.store.load()[1])
            forget_released(self.folders.state, self.config.sandbox_name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from writing the record meanwhile. Raises `Locked`."""
        if self.fixed:
            yield  # with a configured sandbox the daemon does not use the record
            return
        lock = Lock(self.folders.state)
        try:
            lock.acquire()
        except Locked:
            what = "a running syncd syncs this workspace, and acquires sandboxes by itself"
            raise Locked(what, "`syncd flush` waits for it") from None
        try:
            yield
        finally:
            lock.release()


@contextmanager
def sandbox_admin_of(config: Config) -> Iterator[SandboxAdmin]:
    """Open the administration of the account. Raises `SyncdError`."""
    set_up_logs("error", LogFormat.TEXT, {})
    interrupt = Interrupt()
    client = HttpClient(Waiter(interrupt, CLOCK))
    sandbox = config.sandbox
    key = key_of(config, os.environ)
    folders = folders_of(config, os.environ)
    account = Account(sandbox.base_url, key, client)
    store = AcquiredSandboxStore(config, folders.state)
    with interrupting(interrupt):
        try:
            yield SandboxAdmin(config, folders, key, client, account, store)
        except Stop:
            raise TryLater("stopped", "`syncd sandbox list` shows what was done before") from None
        finally:
            client.drop()


_LABEL = 9


@click.group("sandbox")
def command() -> None:
    """Look after the account's sandboxes.

    \b
    syncd sandbox list
    syncd sandbox add blue --acquire         one more agent at this workspace
    """


@contextmanager
def _admin(
    config_file: str | None, sandbox: str | None = None, sandbox_id: str | None = None
) -> Iterator[SandboxAdmin]:
    """Open the administration of the account, for the sandbox of that name or id, else main. Raises `SyncdError`."""
    config = configured(config_file)
    if sandbox is None and sandbox_id is not None:
        state = folders_of(config, os.environ).state
        for own in map(config.for_sandbox, config.sandboxes):
            acquired = AcquiredSandboxStore(own, state).load()[0] if own.sandbox.id is None else None
            if sandbox_id in (own.sandbox.id, acquired and acquired.sandbox_id):
                sandbox = own.sandbox_name
    with sandbox_admin_of(of_sandbox(config, sandbox)) as admin:
        yield admin


@command.command("list")
@config_option
@json_option
def list_(config_file: str | None, as_json: bool) -> None:
    """List what the account has now; * marks those of this workspace."""
    with _admin(config_file) as admin:
        acquired = admin.all_acquired
        names = {each.id: name for name, each in admin.config.sandboxes.items() if each.id is not None}
        names |= {one.sandbox_id: name for name, one in acquired.items()}
        ends = {one.sandbox_id: ends_at(one) for one in acquired.values()}
        rows = [
            {
                "id": info.local_sandbox_id,
                "state": info.status,
                "created_at": info.created_at,
                "servers": [server.name for server in info.servers],
                "in_use": info.local_sandbox_id in names,
                "name": names.get(info.local_sandbox_id),
                "expires_at": ends.get(info.local_sandbox_id),
            }
            for info in admin.account.sandboxes()
        ]
    if as_json:
        click.echo(json.dumps({"sandboxes": rows}))
    elif not rows:
        click.echo("the account has no sandbox")
    else:
        for line in aligned([*map(_cells, rows)]):
            print(line)


def _cells(row: Mapping[str, Any]) -> tuple[str, str, str]:
    named = row["name"] if row["name"] != MAIN else ""
    about = named, _created(row["created_at"]), _ends(row["expires_at"]), ", ".join(row["servers"]) or "no servers"
    name = f"{'*' if row['in_use'] else ' '} {one_line(row['id'], 80)}"
    return name, one_line(row["state"] or "there", 20), one_line(", ".join(filter(None, about)))


@command.command("show")
@click.argument("sandbox_id", metavar="[ID]", required=False)
@config_option
@sandbox_option
@json_option
def show(sandbox_id: str | None, config_file: str | None, sandbox: str | None, as_json: bool) -> None:
    """Show a sandbox and its servers' URLs, which may hold tokens.

    \b
    syncd sandbox show               this workspace's
    syncd sandbox show ID
    """
    with _admin(config_file, sandbox, sandbox_id) as admin:
        wanted = admin.resolve(sandbox_id)
        info = admin.api(wanted).sandbox()
        end = ends_at(admin.acquired) if wanted == admin.ours else None
    click.echo(_shown(info, end, as_json=as_json))


def _shown(info: SandboxInfo, end: str | None, *, as_json: bool) -> str:
    urls = urls_by_name(info.servers)
    usable = callable_servers(urls)
    if as_json:
        document = {
            "id": info.local_sandbox_id,
            "state": info.status,
            "created_at": info.created_at,
            "expires_at": end,
            "servers": usable,
        }
        return json.dumps(document)
    lines = [
        ("id", one_line(info.local_sandbox_id)),
        ("state", ", ".join(filter(None, (one_line(info.status or "there"), _created(info.created_at))))),
        ("ends", f"{end}, {_ends(end)}" if end else "the API does not tell"),
        *(("", f"{one_line(name, 60)}: {usable.get(name, 'no URL')}") for name in urls),
    ]
    return "\n".join(f"{label:{_LABEL}}{text}" for label, text in lines)


@command.command("acquire")
@config_option
@json_option
def acquire(config_file: str | None, as_json: bool) -> None:
    """Acquire a sandbox, unless the one that syncd acquired is alive.
    With [sandbox.acquire] the next sync goes there. With sandbox.id the new one is only named: nothing goes there
    before its id is in the configuration. At most three in ten minutes.
    """
    with _admin(config_file) as admin:
        alive = admin.current()
        acquired = alive or admin.acquire()
        fixed = admin.fixed
    name, end, urls = acquired.sandbox_id, ends_at(acquired), callable_servers(acquired.servers)
    if as_json:
        click.echo(json.dumps({"id": name, "expires_at": end, "servers": urls, "new": alive is None}))
        return
    text = f"{'nothing to do: there is' if alive else 'acquired'} {one_line(name)}"
    click.echo(", ".join(filter(None, (text, _ends(end)))))
    for server, url in urls.items():
        click.echo(f"  {one_line(server, 60)}: {url}")
    if fixed:
        click.echo(f'to use it here, set sandbox.id = "{one_line(name)}"')
    elif not alive:
        click.echo("the next sync fills it: `syncd push`")


@command.command("release")
@click.argument("sandbox_id", metavar="[ID]", required=False)
@config_option
@sandbox_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Do not ask, and release it although something there could not be saved.")
def release(sandbox_id: str | None, config_file: str | None, sandbox: str | None, yes: bool, force: bool) -> None:
    """Give a sandbox back, with all that is in it.

    \b
    syncd sandbox release            this workspace's
    syncd sandbox release ID --yes

    What an agent changed in this workspace's is saved before (`syncd saved`), but not with agent_changes = "overwrite".
    If something cannot be saved, that is named, and asked once more; with --yes it is not released then (75), with
    --force it is. Where there is no terminal to ask on, --yes has to be given.
    """
    with _admin(config_file, sandbox, sandbox_id) as admin:
        wanted = admin.resolve(sandbox_id)
        follows = admin.after_release(wanted)
        if not _may_go(admin, wanted, "release", follows, asks=not (yes or force), force=force):
            return
        done = f"released {wanted}"
        try:
            admin.account.release(wanted)
        except StepFailed as failure:
            if failure.refusal is not SandboxNotFound or wanted != admin.ours:
                raise
            done = f"{wanted} had ended already"
        try:
            admin.forget(wanted)
        except (TryLater, TimeoutError):
            follows = "The daemon cannot be reached now: `syncd push --force` has it use the next one."
    click.echo(f"{done}. {follows}" if follows else done)


def _may_go(admin: SandboxAdmin, sandbox_id: str, verb: str, follows: str = "", *, asks: bool, force: bool) -> bool:
    """Ask, and save what an agent changed in the sandbox, before what the verb says is done; false: it is not wanted.

    Raises `click.UsageError`, `TryLater` and what a look raises.
    """
    from syncd.cli.agent_side import save_before_release  # noqa: PLC0415

    if asks and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on; use --yes.")
    lost, waiter, left = _why_lost(admin, sandbox_id), admin.client.waiter, ""
    if asks or lost:
        becomes = f"lost, as {lost}" if lost else "saved here before"
        click.echo(f"What an agent changed in {sandbox_id} is {becomes}. {follows}".rstrip(), err=True)
    goes_on = not asks or confirmed(f"{verb.capitalize()} it?", waiter, err=True)
    while goes_on and not lost:
        told = left
        try:
            left = save_before_release(admin.config)
        except (StepFailed, NeedsPerson) as failure:
            if not force:
                raise
            left = f"nobody could look for what an agent changed there ({failure})"
        if left in ("", told):
            break
        if not (asks or force):
            raise TryLater(f"{sandbox_id} is not {verb}d: {left}", "try again, or give that up with --force")
        click.echo(left, err=True)
        if not asks:
            break
        # The answer takes its time, in which more may be written there.
        goes_on = confirmed(f"{verb.capitalize()} it all the same?", waiter, err=True)
    if not goes_on:
        click.echo(f"nothing was {verb}d", err=True)
    return goes_on


def _why_lost(admin: SandboxAdmin, sandbox_id: str) -> str:
    """The reason why nothing is saved before a release; empty if it is."""
    if sandbox_id != admin.ours:
        return "it is not this workspace's sandbox"
    if admin.config.sandbox.agent_changes is AgentChanges.OVERWRITE:
        return 'with sandbox.agent_changes = "overwrite" nobody looks for it'
    return ""


def _created(text: str) -> str:
    """The time since then, empty for an invalid one; one without a zone is UTC, as elsewhere in the API."""
    at_s = seconds_of(text if text.endswith("Z") or "+" in text else f"{text}Z")
    return "" if at_s is None else f"created {ago(CLOCK.wall_s() - at_s)}"


def _ends(end: str | None) -> str:
    ends_s = seconds_of(end)
    if ends_s is None:
        return ""
    left_s = ends_s - CLOCK.wall_s()
    return f"ends in {duration(left_s)}" if left_s > 0 else f"ended {ago(-left_s)}"


@command.command("add")
@click.argument("name", metavar="NAME")
@click.option("--id", "sandbox_id", metavar="ID", help="The sandbox, which is there already.")
@click.option("--acquire", is_flag=True, help="Have one acquired, and another one when it expires.")
@config_option
def add(name: str, sandbox_id: str | None, acquire: bool, config_file: str | None) -> None:
    """Sync the workspace to one more sandbox, for one more agent.

    \b
    syncd sandbox add blue --acquire
    syncd sandbox add green --id ID

    The configuration gets a table [sandboxes.NAME], of which all other keys can be set. A running daemon reads it and
    sends the new one everything; no other sandbox notices.
    """
    if acquire == (sandbox_id is not None):
        raise click.UsageError("Name the sandbox with --id, or have one acquired with --acquire.")
    path, config = config_path(config_file), configured(config_file)
    check_name(name)
    if name in config.sandboxes:
        raise click.UsageError(f"There is a sandbox named {name!r}; `syncd sandbox remove {name}` removes it.")
    if sandbox_id is not None:
        _refuse_known(config, sandbox_id)
        keys: dict[str, Any] = {"id": sandbox_id}
    else:
        keys = {"acquire": {"ttl_seconds": (config.sandboxes[MAIN].acquire or AcquireKeys()).ttl_seconds}}
    change_config(path, partial(with_sandbox, name=name, keys=keys))
    click.echo(f"added {name}{f': {one_line(sandbox_id)}' if sandbox_id else ''}")
    if not _reload(config):
        click.echo(f"the next sync fills it: `syncd push --sandbox {name}{option_for(path)}`", err=True)


@command.command("remove")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Do not ask, and remove it although something there could not be saved.")
@config_option
def remove(name: str, yes: bool, force: bool, config_file: str | None) -> None:
    """Sync the workspace to this sandbox no more.

    What the agent changed there is saved before (`syncd saved`), but not with agent_changes = "overwrite"; if something
    cannot be saved, nothing is removed (75), with --force it is. A sandbox that syncd acquired is released; another one
    goes on with all that is in it. The table [sandboxes.NAME] goes from the configuration.
    """
    path, config = config_path(config_file), configured(config_file)
    if name == MAIN or name not in config.sandboxes:
        others = ", ".join(each for each in config.sandboxes if each != MAIN) or "none"
        raise click.UsageError(f"{name!r} is no further sandbox of this workspace; name one of {others}.")
    own = config.for_sandbox(name)
    with sandbox_admin_of(own) as admin:
        acquired, ours = admin.acquired, admin.ours
        if ours is not None and not _may_go(admin, ours, "remove", asks=not (yes or force), force=force):
            return
        change_config(path, partial(without_sandbox, name=name))
        if acquired is not None:  # before a daemon reads that: it would save once more what is saved
            with contextlib.suppress(OSError):
                admin.store.save(None, [])
        _reload(config)
        if acquired is not None:
            try:
                admin.account.release(acquired.sandbox_id)
            except StepFailed as failure:
                if failure.refusal is not SandboxNotFound:
                    raise
    click.echo(f"removed {name}{f', and released {one_line(acquired.sandbox_id)}' if acquired is not None else ''}")
    _tell_reference(config.workspace.path, f"refs/syncd/{name}")


def _tell_reference(workspace: str, reference: str) -> None:
    """Say on stderr that the repository still has the commits of what was followed, if it has: nothing else does."""
    from syncd.merge.git import ANY_CODE, find_git, find_work_tree  # noqa: PLC0415 - for this alone

    git = find_git(os.environ)
    with contextlib.suppress(SyncdError):
        if git is not None:
            variables = {"GIT_DIR": find_work_tree(git, workspace).folder}
            if git.run(["rev-parse", "--verify", "--quiet", reference], variables, ANY_CODE).code == 0:
                click.echo(
                    f"what was followed stays on {reference}: `git update-ref -d {reference}` removes it", err=True
                )


def _refuse_known(config: Config, sandbox_id: str) -> None:
    """Raise `ConfigError` if another workspace's configuration has that sandbox; that of this one is checked anyway."""
    wanted = replace(config, sandbox=replace(config.sandboxes[MAIN], id=sandbox_id, acquire=None))
    others = others_naming(wanted, os.environ)
    if others:
        raise conflict(wanted, others)


def _reload(config: Config) -> bool:
    """Have a running daemon read the configuration anew; false if none runs."""
    return order_daemon(config, {"do": "reload"})
