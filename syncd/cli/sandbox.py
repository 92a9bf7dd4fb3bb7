"""`syncd sandbox`: lists, shows, acquires and releases the account's sandboxes.

Text from a server is not trusted: none of it reaches a terminal unescaped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from syncd.cli.agent_side import connected, save_before_release
from syncd.cli.config import change_config, checked, with_sandbox, without_sandbox
from syncd.cli.daemon_client import order_daemon
from syncd.cli.options import (
    CLOCK,
    config_option,
    configured,
    confirmed,
    interruptible,
    json_option,
    note_done,
    of_sandbox,
    option_for,
    sandbox_option,
    sandbox_options,
    stoppable,
)
from syncd.cli.output import CommandGroup, aligned, text_width, wrapped
from syncd.core.choices import AgentChanges
from syncd.core.clock import day_and_time, seconds_of
from syncd.core.config_file import parse_config, read_text
from syncd.core.directories import Lock
from syncd.core.errors import Locked, NeedsPerson, SandboxNotFound, TryLater, Unavailable
from syncd.core.settings import MAIN, AcquireKeys, Config, check_name, table_of
from syncd.core.text import ago, duration, one_line
from syncd.core.waiter import Waiter
from syncd.daemon.build import key_of, known_target, places_of, target_of
from syncd.remote.api import SandboxInfo, urls_by_name
from syncd.remote.failure import StepFailed
from syncd.remote.target import AcquiredSandbox, Target, ends_at, replace_in_s
from syncd.sandbox.provider import AcquiredSandboxStore, acquired_of, callable_servers
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sync.sandbox import Access

_LABEL = 9
_INDENT = 4  # of the later lines of a row
_BEGUN = ("some of it may be done", "`syncd sandbox list` shows that")


@click.group("sandbox", cls=CommandGroup)
def command() -> None:
    """Look after the account's sandboxes.

    \b
    syncd sandbox list
    syncd sandbox add blue --acquire    one more agent
    """


def _acquired(config: Config) -> AcquiredSandbox | None:
    return acquired_of(config, places_of(config, os.environ).state)


def _own(config: Config) -> dict[str, Config]:
    """The workspace's sandboxes by their ids, as far as they have one, each with its configuration."""
    found = ((own, known_target(own, os.environ)) for own in map(config.for_sandbox, config.sandboxes))
    return {target.sandbox_id: own for own, target in found if target is not None}


def _named(config_file: str | None, sandbox: str | None, sandbox_id: str | None) -> tuple[Config, Target]:
    """The sandbox of that name or id, else main, and the configuration that it is asked by. Raises `SyncdError`."""
    config = of_sandbox(configured(config_file), sandbox)
    if sandbox_id is None:
        return config, target_of(config, os.environ)
    if sandbox_id in ("", ".", "..") or not sandbox_id.isprintable():  # as bytes that are not UTF-8 are not
        raise click.UsageError(f"{sandbox_id!r} is no sandbox's id.")
    config = config if sandbox else _own(config).get(sandbox_id, config)
    return config, Target(config.sandbox.base_url, sandbox_id, config.sandbox.region)


def _is_ours(config: Config, target: Target) -> bool:
    return target.sandbox_id in (config.sandbox.id, (it := _acquired(config)) and it.sandbox_id)


@command.command("list")
@config_option
@json_option
def list_(config_file: str | None, as_json: bool) -> None:
    """List what the account has now; * marks those of this workspace."""
    config = configured(config_file)
    own = _own(config)
    with stoppable(), connected(config) as access:
        found = access.account().sandboxes()
    rows = [_row(info, own.get(info.local_sandbox_id)) for info in found]
    if as_json:
        click.echo(json.dumps({"sandboxes": rows}))
    elif not rows:
        click.echo("the account has no sandbox")
    else:
        for row in aligned([*map(_cells, rows)]):
            print(*wrapped(row, text_width(sys.stdout, 10_000), "", _INDENT), sep="\n")


def _row(info: SandboxInfo, own: Config | None) -> dict[str, Any]:
    return {
        "id": info.local_sandbox_id,
        "state": info.status,
        "created_at": info.created_at,
        "servers": [server.name for server in info.servers],
        "in_use": own is not None,
        "name": own and own.sandbox_name,
        "expires_at": own and ends_at(_acquired(own)),
    }


def _cells(row: Mapping[str, Any]) -> tuple[str, str, str]:
    named = row["name"] if row["name"] != MAIN else ""
    about = named, _created(row["created_at"]), _ends(row["expires_at"]), ", ".join(row["servers"]) or "no servers"
    name = f"{'*' if row['in_use'] else ' '} {one_line(row['id'], 80)}"
    return name, one_line(row["state"] or "there", 20), one_line(", ".join(filter(None, about)))


@command.command("show")
@click.argument("sandbox_id", metavar="[ID]", required=False)
@sandbox_options
def show(sandbox_id: str | None, config_file: str | None, sandbox: str | None, as_json: bool) -> None:
    """Show this workspace's sandbox, or that ID, with servers' URLs."""
    config, target = _named(config_file, sandbox, sandbox_id)
    with stoppable(), connected(config) as access:
        info = access.api(target).sandbox()
    end, urls = ends_at(_acquired(config) if _is_ours(config, target) else None), urls_by_name(info.servers)
    usable = callable_servers(urls)
    if as_json:
        about = {"id": info.local_sandbox_id, "state": info.status, "created_at": info.created_at}
        click.echo(json.dumps({**about, "expires_at": end, "servers": usable}))
        return
    for label, text in (
        ("id", one_line(info.local_sandbox_id)),
        ("state", ", ".join(filter(None, (one_line(info.status or "there"), _created(info.created_at))))),
        ("ends", _ends(end).removeprefix("ends ") or "Klavis does not say"),
        *(("server", f"{one_line(name, 60)}: {usable.get(name, 'no URL')}") for name in urls),
    ):
        click.echo(f"{label:{_LABEL}}{text}")


@command.command("acquire")
@config_option
@json_option
def acquire(config_file: str | None, as_json: bool) -> None:
    """Acquire a sandbox, unless the one that syncd acquired is alive.

    \b
    syncd sandbox acquire --json

    With [sandbox.acquire] the next sync goes there. With sandbox.id the new one is only named: nothing goes there
    before its id is in the configuration. At most three in ten minutes.
    """
    config = configured(config_file)
    with stoppable(), connected(config) as access:
        alive = _alive(access)
        note_done(*_BEGUN)
        acquired = alive or _acquire_one(access)
    name, end, urls = acquired.sandbox_id, ends_at(acquired), callable_servers(acquired.servers)
    if as_json:
        click.echo(json.dumps({"id": name, "expires_at": end, "servers": urls, "new": alive is None}))
        return
    text = f"{'nothing to do: there is' if alive else 'acquired'} {one_line(name)}"
    click.echo(", which ".join(filter(None, (text, _ends(end)))))
    for server, url in urls.items():
        click.echo(f"  {one_line(server, 60)}: {url}")
    if config.sandbox.id is not None:
        click.echo(f'to use it here, set sandbox.id = "{one_line(name)}" with `syncd config edit`')
    elif not alive:
        click.echo("the next sync fills it: `syncd push`")


def _alive(access: Access) -> AcquiredSandbox | None:
    """Return this workspace's acquired sandbox, if it still exists. Raises `StepFailed`."""
    acquired = _acquired(access.config)
    if acquired is None or replace_in_s(acquired, CLOCK.wall_s()) == 0.0:
        return None
    try:
        access.api(target_of(access.config, os.environ)).sandbox()
    except StepFailed as failure:
        if failure.refusal is not SandboxNotFound:
            raise
        return None
    return acquired


def _acquire_one(access: Access) -> AcquiredSandbox:
    """Acquire one more, counted with those that syncs acquire. Raises `SyncdError`, `StepFailed`, `Stop`."""

    def wait_out(failure: StepFailed, wait_s: float) -> None:
        click.echo(f"{failure}; trying again in {wait_s:.1f} s", err=True)
        access.waiter.sleep(wait_s)

    try:
        # With the lock no other process writes the record of the acquired sandbox meanwhile.
        is_named = access.config.sandbox.id is not None
        with contextlib.nullcontext() if is_named else Lock(access.folders.state):
            provider = access.provider()
            acquired = provider.acquire(wait_out)
            if is_named:
                provider.abandon()  # it is for a person: a later [sandbox.acquire] must not sync to it
            return acquired
    except Locked:
        what = "a running syncd syncs this workspace, and acquires sandboxes by itself"
        raise Locked(what, "`syncd flush` waits for it") from None


@command.command("release")
@click.argument("sandbox_id", metavar="[ID]", required=False)
@config_option
@sandbox_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Do not ask, and release it although something there could not be saved.")
def release(sandbox_id: str | None, config_file: str | None, sandbox: str | None, yes: bool, force: bool) -> None:
    """Give this workspace's sandbox back, or that ID, with all in it.

    \b
    syncd sandbox release --sandbox blue

    What an agent changed in this workspace's is saved before (`syncd saved`), but not with agent_changes = "overwrite".
    If something cannot be saved, that is named, and asked once more; with --yes it is not released then (75).
    """
    config, target = _named(config_file, sandbox, sandbox_id)
    is_ours, follows = _is_ours(config, target), ""
    if is_ours:
        key = f"{table_of(config.sandbox_name)}.id"
        follows = f"Nothing more is synced until {key} names another one (`syncd config edit`)."
        if config.sandbox.acquire is not None:
            follows = "The next sync acquires another one."
    with stoppable(), connected(config) as access:
        asks = not (yes or force)
        if not _ask_and_save(config, access.waiter, target, "release", follows, asks=asks, force=force):
            return
        done = f"released {target.sandbox_id}"
        try:
            access.account().release(target.sandbox_id)
        except StepFailed as failure:
            if failure.refusal is not SandboxNotFound or not is_ours:
                raise
            done = f"{target.sandbox_id} had ended already"
        if is_ours:
            _forget(access, target)
    click.echo(f"{done}. {follows}" if follows else done)


def _forget(access: Access, target: Target) -> None:
    """Have nothing count as synced to this released sandbox, and an acquired one replaced."""
    config = access.config
    with contextlib.suppress(OSError):
        SandboxState(access.db, target, name=config.sandbox_name).mark_released()
    try:
        has_daemon = order_daemon(config, {"do": "left", "id": target.sandbox_id})
    except TryLater:
        click.echo("the daemon cannot be reached now: `syncd push --force` has it use the next one", err=True)
        return
    if not has_daemon and config.sandbox.id is None:
        store = AcquiredSandboxStore(config, access.folders.state)
        with contextlib.suppress(TryLater, OSError), Lock(access.folders.state):
            store.save(None, store.load()[1])


def _ask_and_save(
    config: Config, waiter: Waiter, target: Target, verb: str, follows: str = "", *, asks: bool, force: bool
) -> bool:
    """Ask, and save what an agent changed in the sandbox, before what the verb says is done; false: it is not wanted.

    Raises `click.UsageError`, `TryLater` and what a look raises.
    """
    if asks and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on; use --yes.")
    left = lost = ""
    if not _is_ours(config, target):
        lost = "it is not this workspace's sandbox"
    elif config.sandbox.agent_changes is AgentChanges.OVERWRITE:
        lost = 'with sandbox.agent_changes = "overwrite" nobody looks for it'
    if asks or lost:
        becomes = f"lost, as {lost}" if lost else "saved here before"
        click.echo(f"What an agent changed in {target.sandbox_id} is {becomes}. {follows}".rstrip(), err=True)
    goes_on = not asks or confirmed(f"{verb.capitalize()} it?", waiter, err=True)
    note_done(*_BEGUN)
    while goes_on and not lost:  # an answer takes its time, in which more may be written there
        told = left
        try:
            left = save_before_release(config)
        except (Unavailable, NeedsPerson) as failure:
            if not force:
                raise
            left = f"nobody could look for what an agent changed there ({failure})"
        if left in ("", told):
            break
        if not (asks or force):
            raise TryLater(f"{target.sandbox_id} is not {verb}d: {left}", "try again, or give that up with --force")
        click.echo(left, err=True)
        goes_on = force or confirmed(f"{verb.capitalize()} it all the same?", waiter, err=True)
    if not goes_on:
        click.echo(f"nothing was {verb}d", err=True)
    return goes_on


def _created(text: str) -> str:
    """The time since then, empty for an invalid one; one without a zone is UTC, as elsewhere in the API."""
    at_s = seconds_of(text if text.endswith("Z") or "+" in text else f"{text}Z")
    return "" if at_s is None else f"created {ago(CLOCK.wall_s() - at_s)}"


def _ends(end: str | None) -> str:
    ends_s = seconds_of(end)
    if ends_s is None:
        return ""
    left_s = ends_s - CLOCK.wall_s()
    return f"ends in {duration(left_s)}, {day_and_time(ends_s)}" if left_s > 0 else f"ended {ago(-left_s)}"


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

    Klavis is asked for the one of that id first; if that is refused, nothing is changed. The configuration gets a table
    [sandboxes.NAME]. A running daemon reads it and sends the new one everything.
    """
    if acquire == (sandbox_id is not None):
        raise click.UsageError("Name the sandbox with --id, or have one acquired with --acquire.")
    config = configured(config_file)
    path = config.file
    check_name(name)
    if name in config.sandboxes:
        raise click.UsageError(f"There is a sandbox named {name!r}; `syncd sandbox remove {name}` removes it.")
    acquired = {"acquire": {"ttl_seconds": (config.sandboxes[MAIN].acquire or AcquireKeys()).ttl_seconds}}
    keys: dict[str, Any] = acquired if sandbox_id is None else {"id": sandbox_id}
    change = partial(with_sandbox, name=name, keys=keys)
    if sandbox_id is not None:
        from syncd.cli.init import try_sandbox  # noqa: PLC0415 - for this alone

        try_sandbox(checked(parse_config(change(read_text(path)), path), path).for_sandbox(name))
    change_config(path, change)
    click.echo(f"added {name}{f': {one_line(sandbox_id)}' if sandbox_id else ''}")
    if not order_daemon(config, {"do": "reload"}):
        click.echo(f"the next sync fills it: `syncd push --sandbox {name}{option_for(path)}`", err=True)


@command.command("remove")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Do not ask, and remove it although something there could not be saved.")
@config_option
def remove(name: str, yes: bool, force: bool, config_file: str | None) -> None:
    """Sync the workspace to this sandbox no more.

    \b
    syncd sandbox remove blue

    What the agent changed there is saved before (`syncd saved`), but not with agent_changes = "overwrite"; if something
    cannot be saved, nothing is removed (75). A sandbox that syncd acquired is released; another one goes on.
    """
    config = configured(config_file)
    if name == MAIN or name not in config.sandboxes:
        others = ", ".join(each for each in config.sandboxes if each != MAIN) or "main alone"
        raise click.UsageError(f"{name!r} is no further sandbox of this workspace; it has {others}.")
    own = config.for_sandbox(name)
    acquired, target = _acquired(own), known_target(own, os.environ)
    if acquired is not None:
        key_of(own, os.environ)  # nothing is removed that cannot be released then
    with stoppable(), interruptible() as waiter:
        follows = "Then it is released." if acquired is not None else ""
        asks = not (yes or force)
        if target is not None and not _ask_and_save(own, waiter, target, "remove", follows, asks=asks, force=force):
            return
        change_config(config.file, partial(without_sandbox, name=name))
        if acquired is not None:  # before a daemon reads that: it would save once more what is saved
            with contextlib.suppress(OSError):
                AcquiredSandboxStore(own, places_of(own, os.environ).state).save(None, [])
        order_daemon(config, {"do": "reload"})
        if acquired is not None:
            with connected(own) as access:
                try:
                    access.account().release(acquired.sandbox_id)
                except StepFailed as failure:
                    if failure.refusal is not SandboxNotFound:
                        raise
    click.echo(f"removed {name}{f', and released {one_line(acquired.sandbox_id)}' if acquired is not None else ''}")
