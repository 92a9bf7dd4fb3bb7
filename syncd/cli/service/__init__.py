"""`syncd service`: installs and removes the systemd user unit, and runs systemctl and journalctl on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import click

import syncd
from syncd.cli.options import config_option, config_path, configured, option_for, shipped
from syncd.cli.service.systemd import (
    SANDBOXING,
    Unit,
    UserService,
    fitted,
    is_unchanged,
    switched_off,
    unit_of,
    with_digest,
)
from syncd.core.api_key import find_key
from syncd.core.directories import default_config_path, directories_for
from syncd.core.durable_file import write_whole
from syncd.core.errors import ConfigError, NeedsPerson, TryLater
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.selection.ignore_files import repository_around

# They set the folders of the daemon and of commands, so both must have the same.
_SHARED = {"XDG_CONFIG_HOME": ".config", "XDG_STATE_HOME": ".local/state", "XDG_CACHE_HOME": ".cache"}
_TEMPORARY = ("/tmp/", "/var/tmp/")  # noqa: S108 - what PrivateTmp= replaces


def _service_of(config_file: str | None) -> UserService:
    """The unit of this configuration. Raises `SyncdError` if there is no systemd, or no unit for such a path."""
    path = config_path(config_file)
    unit = unit_of(path, os.path.dirname(default_config_path(os.environ)))
    return UserService(unit, option_for(path), os.environ)


@click.group("service")
def command() -> None:
    """Keep syncd running at every login, as a systemd user unit.

    \b
    syncd service install            again after an upgrade, a move or a new key
    syncd service logs -f            what it does, as it does it

    The default configuration is the unit syncd, ~/.config/syncd/NAME.toml is syncd@NAME.
    """


@command.command("install")
@config_option
def install(config_file: str | None) -> None:
    """Write the unit, switch it on, and start it anew.

    A unit that a person edited is left as it is. Ends with 0 once the daemon is ready.
    """
    service = _service_of(config_file)
    config = configured(config_file)
    unit, workspace = service.unit, config.workspace.path
    if not os.path.isdir(workspace):
        # The daemon would report it too, but only after it is ready, when this command has ended.
        raise ConfigError(
            f"the workspace {workspace!r} does not exist", "make it, or correct workspace.path with `syncd config edit`"
        )
    _check_same_folders(service)
    find_key(service.environ, config.sandbox.api_key_file)
    if _is_edited(unit):
        raise ConfigError(
            f"{unit.path} is not as syncd wrote it and is left alone",
            f"put your changes into `systemctl --user edit {unit.stem}`, remove the file and install again",
        )
    sandboxing, places = service.supports_sandboxing(), directories_for(workspace, os.environ)
    text = fitted(
        shipped(unit.file),
        python=os.path.abspath(sys.executable),  # that of a venv is a link to one that does not have syncd
        key_file=config.sandbox.api_key_file,
        folders=(os.path.dirname(places.state), os.path.dirname(places.spool)),
        writable=_writable(config),
        version=service.version(),
    )
    if any(path.startswith(_TEMPORARY) for path in (workspace, config.file, sys.prefix, syncd.__file__)):
        text = switched_off(text, "PrivateTmp")
    if not sandboxing:
        text = switched_off(text, SANDBOXING)
    try:
        os.makedirs(unit.folder, exist_ok=True)
        write_whole(unit.path, with_digest(text, unit.stem).encode())
    except OSError as failure:
        raise ConfigError(f"{unit.path} cannot be written ({failure.strerror})", "make it writable") from None
    click.echo(f"wrote {shown_path(unit.path)}")
    service.do("reenable", "--quiet", "--no-reload", "--", unit.name)
    service.do("daemon-reload")
    service.try_to("reset-failed")
    service.try_to("restart")
    _check_started(service)
    click.echo(f"{unit.name} was started")
    if not sandboxing:
        what = "this machine refuses user namespaces, so the service runs without its sandbox"
        click.echo(f"note: {what}; once they are allowed, install again")
    if service.ends_at_logout():
        click.echo("note: it ends when you log out; to keep it: sudo loginctl enable-linger $USER")
    click.echo(f"look at it: syncd service status{service.option}")
    click.echo(f"undo it: syncd service uninstall{service.option}")


@command.command("uninstall")
@config_option
def uninstall(config_file: str | None) -> None:
    """Stop the service, and remove what `install` wrote.

    Configuration, key and state stay.
    """
    service = _service_of(config_file)
    unit = service.unit
    found = "stopped and switched off" if os.path.lexists(unit.path) else "not installed"
    service.try_to("disable", "--quiet", "--now")
    service.try_to("stop")  # where it was not enabled
    if _is_edited(unit):
        click.echo(f"{shown_path(unit.path)} is not as syncd wrote it and stays")
    else:
        with suppress(FileNotFoundError):
            os.unlink(unit.path)
            click.echo(f"removed {shown_path(unit.path)}")
    service.do("daemon-reload")
    service.try_to("reset-failed")
    click.echo(f"{unit.name} is {found}")


def _pass_on(verb: str, does: str, program: str = "systemctl") -> None:
    """Add the command that runs a program of systemd's on the unit, with all its own options and its exit code."""
    whole = f"{program} --user {'-u' if program == 'journalctl' else verb}"

    @command.command(
        verb,
        help=f"{does}. It runs `{whole}` on the unit.",
        context_settings={"ignore_unknown_options": True},
    )
    @config_option
    @click.argument("options", metavar=f"[{program.upper()}-OPTION]...", nargs=-1, type=click.UNPROCESSED)
    def run(config_file: str | None, options: tuple[str, ...]) -> None:
        service = _service_of(config_file)
        words = (verb, *options, "--") if program == "systemctl" else (*options, "-u")
        service.become(program, "--user", *words, service.unit.name)


_pass_on("start", "Start the service")
_pass_on("stop", "Stop the service until the next login")
_pass_on("restart", "Stop and start the service, with a new key")
_pass_on("status", "Show if the service runs, and its last log lines")
_pass_on("logs", "Show the service's log", "journalctl")


def _check_started(service: UserService) -> None:
    """Raise `TryLater` if systemd tries the start again by itself, and `NeedsPerson` if it does not."""
    state, status = service.state()
    if state == "active":
        return
    see = f"see `syncd service logs{service.option}`; `syncd check{service.option}` tries all that it needs"
    what = f"{service.unit.name} did not start (exit {status})"
    if state == "activating":
        raise TryLater(f"{what}, and is tried again", see)
    raise NeedsPerson(what, see)


def _check_same_folders(service: UserService) -> None:
    """Raise `ConfigError` where the daemon would have other folders than commands from this shell."""
    for name, fallback in _SHARED.items():
        default = os.path.join(os.path.expanduser("~"), fallback)
        ours, theirs = os.environ.get(name) or default, service.environ.get(name) or default
        if os.path.normpath(ours) != os.path.normpath(theirs):
            raise ConfigError(
                f"{name} is {ours} here and {theirs} in the service manager",
                "give both the same in ~/.config/environment.d/, then log in again",
            )


def _writable(config: Config) -> Iterator[str]:
    """The folders of the repository around the workspace that a commit of what was followed goes into."""
    if any(sandbox.follow_seconds for sandbox in config.sandboxes.values()):
        with suppress(OSError):  # the daemon reports it
            if (repository := repository_around(config.workspace.path)) and repository.folder:
                yield from (os.path.join(repository.folder, name) for name in ("objects", "refs", "logs", "reftable"))


def _is_edited(unit: Unit) -> bool:
    try:
        with open(unit.path, encoding="utf-8", errors="replace") as file:
            return not is_unchanged(file.read(), shipped(unit.file))
    except FileNotFoundError:
        return os.path.islink(unit.path)  # as `systemctl mask` of another place leaves
