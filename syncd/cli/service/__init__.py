"""`syncd service`: installs and removes the systemd user unit, and runs systemctl and journalctl on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import click

import syncd
from syncd.cli.options import config_option, config_path, configured, option_for, shipped
from syncd.cli.service.systemd import (
    Unit,
    UserService,
    environment_in,
    fitted,
    is_unchanged,
    settings_for,
    started_at,
    unit_of,
    user_name,
    with_digest,
)
from syncd.core.api_key import find_key
from syncd.core.directories import default_config_path, default_key_file
from syncd.core.errors import ConfigError, KeyRefused, NeedsPerson, TryLater
from syncd.core.settings import Config, is_loopback
from syncd.core.text import shown_path
from syncd.selection.ignore_files import repository_around

# They set the folders of the daemon and of commands, so both must have the same.
_SHARED = {"XDG_CONFIG_HOME": ".config", "XDG_STATE_HOME": ".local/state", "XDG_CACHE_HOME": ".cache"}
# The proxy and the certificates for the API; each name also in lower case.
_ROUTE_VARIABLES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


def _service_of(config_file: str | None) -> UserService:
    """The unit of this configuration. Raises `SyncdError` if there is no systemd, or no unit for such a path."""
    path = config_path(config_file)
    unit = unit_of(path, os.path.dirname(default_config_path(os.environ)))
    return UserService(unit, option_for(path), os.environ)


def _login_advice(service: UserService) -> Iterator[tuple[str, str]]:
    """A note with its remedy if the service ends with the last session."""
    if service.lingers() is False:
        yield "it ends when you log out", f"to keep it: sudo loginctl enable-linger {user_name()}"


def _route_advice(service: UserService, config: Config, properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """A note with its remedy for each variable of the route to the API that this shell has and the service lacks."""
    if is_loopback(urlsplit(config.sandbox.base_url).hostname or ""):
        return
    environ = service.environ | environment_in(properties.get("Environment", "").replace(" ", "\n"))
    for name in _ROUTE_VARIABLES:
        here, there = (each.get(name) or each.get(name.lower()) for each in (os.environ, environ))
        if here and not there:
            what = f"{name} is set in this shell, but not for the service"
            yield what, f"put the line {name}=… into ~/.config/environment.d/syncd.conf, log in again and install again"


@click.group("service")
def command() -> None:
    """Keep syncd running at every login, as a systemd user unit.

    The default configuration is the unit syncd, ~/.config/syncd/NAME.toml is syncd@NAME.
    """


@command.command("install")
@config_option
def install(config_file: str | None) -> None:
    """Write the unit, switch it on and start it; again after an upgrade, a move or a new key.

    A unit that a person edited is left as it is. Ends with 0 once the daemon is ready.
    """
    service = _service_of(config_file)
    config = configured(config_file)
    unit, key_file = service.unit, config.sandbox.api_key_file
    if not os.path.isdir(config.workspace.path):
        # The daemon would report it too, but only after it is ready, when this command has ended.
        raise ConfigError(
            f"the workspace {config.workspace.path!r} does not exist", "make it, or correct workspace.path"
        )
    _check_same_folders(service)
    _check_key_file(key_file, service)
    sandboxing = service.supports_sandboxing()
    texts = {
        unit.path: fitted(
            shipped(unit.file),
            os.path.abspath(sys.executable),  # not resolved: that of a venv is a link to one that does not have syncd
            service.version(),
            service.environ.get("XDG_STATE_HOME", ""),
        ),
        unit.drop_in: settings_for(
            key_file,
            usual_key_file=default_key_file(os.environ),
            visible=_visible(config),
            writable=_writable(config),
            sandboxing=sandboxing,
        ),
    }
    for path in texts:
        if _is_edited(path, unit):
            raise ConfigError(
                f"{path} is not as syncd wrote it and is left alone",
                f"put your changes into `systemctl --user edit {unit.stem}`, remove the file and install again",
            )
    written = [path for path, text in texts.items() if _write(path, with_digest(text, unit.stem))]
    service.do("enable", "--quiet", "--no-reload", "--", unit.name)
    service.do("daemon-reload")
    is_outdated = bool(written) or _changed_at(key_file) > started_at(service.properties())
    service.try_to("reset-failed")
    service.try_to("restart" if is_outdated else "start")
    for path in written:
        click.echo(f"{'wrote' if os.path.lexists(path) else 'removed'} {shown_path(path)}")
    properties = service.properties()
    _check_started(service, properties)
    click.echo(f"{unit.name} {'was started' if is_outdated else 'is up to date and runs'}")
    if not sandboxing:
        _tell(
            "this machine refuses user namespaces, so the service runs without its sandbox",
            "once they are allowed, install again",
        )
    for what, remedy in (*_login_advice(service), *_route_advice(service, config, properties)):
        _tell(what, remedy)
    click.echo(f"look at it: syncd service status{service.option}")
    click.echo(f"undo it: syncd service uninstall{service.option}")


@command.command("uninstall")
@config_option
def uninstall(config_file: str | None) -> None:
    """Stop the service, switch it off and remove what `install` wrote. Configuration, key and state stay."""
    service = _service_of(config_file)
    unit = service.unit
    was_installed = unit.is_installed
    service.try_to("disable", "--quiet", "--now")
    service.try_to("stop")  # where it was not enabled
    removed = _remove(unit.drop_in, unit)
    if others := _other_instances(unit):
        click.echo(f"{shown_path(unit.path)} stays: {', '.join(others)} needs it")
    else:
        removed += _remove(unit.path, unit)
    for folder in (os.path.dirname(unit.drop_in), unit.folder, os.path.dirname(unit.folder)):
        with suppress(OSError):  # it is not empty, or missing
            os.rmdir(folder)
    service.do("daemon-reload")
    service.try_to("reset-failed")
    for path in removed:
        click.echo(f"removed {shown_path(path)}")
    click.echo(f"{unit.name} is {'stopped and switched off' if was_installed else 'not installed'}")


def _pass_on(verb: str, help_line: str, program: str = "systemctl") -> None:
    """Add the command that runs a program of systemd's on the unit, with all its own options and its exit code."""

    @command.command(verb, help=help_line, context_settings={"ignore_unknown_options": True})
    @config_option
    @click.argument("options", metavar=f"[{program.upper()}-OPTION]...", nargs=-1, type=click.UNPROCESSED)
    def run(config_file: str | None, options: tuple[str, ...]) -> None:
        service = _service_of(config_file)
        words = (verb, *options, "--") if program == "systemctl" else (*options, "-u")
        service.become(program, "--user", *words, service.unit.name)


_pass_on("start", "Start the service: `systemctl --user start` of its unit.")
_pass_on("stop", "Stop the service until the next login: `systemctl --user stop` of its unit.")
_pass_on("restart", "Stop and start the service, with a new key: `systemctl --user restart` of its unit.")
_pass_on("status", "Show if it runs, and its last log lines: `systemctl --user status` of its unit.")
_pass_on("logs", "Show its log (-f: follow): `journalctl --user -u` of its unit.", "journalctl")


def _check_started(service: UserService, properties: Mapping[str, str]) -> None:
    """Raise `TryLater` if systemd tries the start again by itself, and `NeedsPerson` if it does not."""
    if properties.get("ActiveState") == "active":
        return
    see = f"see `syncd service logs{service.option}`; `syncd check{service.option}` tries all that it needs"
    status = properties.get("ExecMainStatus", "")
    if properties.get("ActiveState") == "activating":
        raise TryLater(f"{service.unit.name} did not start (exit {status}), and is tried again", see)
    raise NeedsPerson(f"{service.unit.name} did not start (exit {status})", see)


def _tell(what: str, remedy: str) -> None:
    click.echo(f"note: {what}; {remedy}")


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


def _check_key_file(key_file: str, service: UserService) -> None:
    """Raise `KeyRefused` if there is no key for the service: in this file, or in the manager's environment."""
    is_there = os.path.lexists(key_file)
    if not is_there and service.environ.get("KLAVIS_API_KEY"):
        return
    if not is_there and os.environ.get("KLAVIS_API_KEY"):
        raise KeyRefused("a service does not see $KLAVIS_API_KEY", f"put the key into {key_file}, mode 0600")
    find_key({}, key_file)


def _visible(config: Config) -> Iterator[str]:
    """The paths that the service must see, wherever they are."""
    yield config.workspace.path
    yield os.path.dirname(config.file)
    # The venv, the Python that it was made with, and syncd, if that is a checkout.
    yield from (sys.prefix, sys.base_prefix, os.path.dirname(os.path.abspath(syncd.__file__)))
    with suppress(OSError):  # the daemon reports it
        if repository := repository_around(config.workspace.path):
            yield repository.folder  # a linked work tree has it outside of itself


def _writable(config: Config) -> Iterator[str]:
    """The folders of the repository around the workspace that a commit of what was followed goes into."""
    if any(sandbox.follow_seconds for sandbox in config.sandboxes.values()):
        with suppress(OSError):  # the daemon reports it
            if (repository := repository_around(config.workspace.path)) and repository.folder:
                yield from (os.path.join(repository.folder, name) for name in ("objects", "refs", "logs", "reftable"))


def _is_edited(path: str, unit: Unit) -> bool:
    found = _content(path)
    return found is not None and not is_unchanged(found, shipped(unit.file))


def _content(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return "" if os.path.islink(path) else None  # a dangling link, as `systemctl mask` of another place leaves
    except OSError as failure:
        raise ConfigError(f"{path} cannot be read ({failure.strerror})", "let your user read it") from None


def _write(path: str, text: str) -> bool:
    """Write the file, or remove it if the text is empty. True if that changed anything."""
    if (_content(path) or "") == text:
        return False
    try:
        if not text:
            os.unlink(path)
            return True
        os.makedirs(os.path.dirname(path), exist_ok=True)
        draft = f"{path}.new"
        with open(draft, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        os.replace(draft, path)
    except OSError as failure:
        raise ConfigError(f"{path} cannot be written ({failure.strerror})", "make it writable") from None
    return True


def _remove(path: str, unit: Unit) -> list[str]:
    """Remove the file if it is unchanged. Returns the removed paths."""
    if _is_edited(path, unit):
        click.echo(f"{shown_path(path)} is not as syncd wrote it and stays")
        return []
    try:
        os.unlink(path)
    except FileNotFoundError:
        return []
    return [path]


def _other_instances(unit: Unit) -> list[str]:
    """The other units that need the template: those that are enabled."""
    wants = os.path.dirname(unit.link)
    if unit.file == unit.name or not os.path.isdir(wants):
        return []
    return sorted(name for name in os.listdir(wants) if name.startswith("syncd@") and name != unit.name)


def _changed_at(path: str) -> int:
    try:
        return int(os.stat(path).st_mtime)  # whole seconds, as in systemd
    except OSError:
        return 0
