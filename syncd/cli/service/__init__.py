"""`syncd service`: installs, removes and inspects the systemd user unit."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import click

import syncd
from syncd.cli.options import config_option, config_path, configured, json_option, option_for, shipped
from syncd.cli.service.systemd import (
    Report,
    Unit,
    UserService,
    environment_in,
    fitted,
    is_unchanged,
    main_pid,
    report,
    settings_for,
    started_at,
    unit_of,
    user_name,
    with_digest,
)
from syncd.core.api_key import find_key
from syncd.core.directories import default_config_path, default_key_file
from syncd.core.errors import ConfigError, ExitCode, KeyRefused, SyncdError
from syncd.core.settings import Config, is_loopback
from syncd.core.text import one_line, redacted, shown_path
from syncd.selection.ignore_files import repository_around

_LOG_LINES = 5
# They set the folders of the daemon and of commands, so both must have the same.
_SHARED = {"XDG_CONFIG_HOME": ".config", "XDG_STATE_HOME": ".local/state", "XDG_CACHE_HOME": ".cache"}
# The proxy and the certificates for the API; each name also in lower case.
_ROUTE_VARIABLES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
_COLOURS = {ExitCode.DONE: "green", ExitCode.TRY_LATER: "yellow", ExitCode.NEEDS_PERSON: "red"}


def service_of(config_file: str | None) -> UserService:
    """The unit of this configuration. Raises `SyncdError` if there is no systemd, or no unit for such a path."""
    path = config_path(config_file)
    unit = unit_of(path, os.path.dirname(default_config_path(os.environ)))
    return UserService(unit, option_for(path), os.environ)


def report_of(service: UserService, properties: Mapping[str, str], key_file: str) -> Report:
    return report(service.unit, properties, service.option, key_file, _changed_at(key_file))


def login_advice(service: UserService) -> Iterator[tuple[str, str]]:
    """A note with its remedy if the service ends with the last session."""
    if service.lingers() is False:
        yield "it ends when you log out", f"to keep it: sudo loginctl enable-linger {user_name()}"


def route_advice(service: UserService, config: Config, properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
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
def install(config_file: str | None) -> int:
    """Write the unit, switch it on and start it; again after an upgrade, a move or a new key.

    A unit that a person edited is left as it is. Ends with 0 once the daemon is ready.
    """
    service = service_of(config_file)
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
    before = service.properties()
    started = bool(written) or before.get("ActiveState") != "active" or _changed_at(key_file) > started_at(before)
    if started:
        service.try_to("reset-failed", "--", unit.name)
        service.try_to("restart", "--", unit.name)
    for path in written:
        click.echo(f"{'wrote' if os.path.lexists(path) else 'removed'} {shown_path(path)}")
    if not started:
        click.echo(f"{unit.name} is up to date and runs")
    properties = service.properties()
    now = report_of(service, properties, key_file)
    _show(service, now, _LOG_LINES if now.exit_code else 0)
    if not sandboxing:
        _print("note", "this machine refuses user namespaces, so the service runs without its sandbox")
        _print("to do", "once they are allowed, install again")
    for what, remedy in (*login_advice(service), *route_advice(service, config, properties)):
        _print("note", what)
        _print("to do", remedy)
    click.echo(f"look at it: syncd service status{service.option}")
    click.echo(f"undo it: syncd service uninstall{service.option}")
    return now.exit_code


@command.command("uninstall")
@config_option
def uninstall(config_file: str | None) -> None:
    """Stop the service, switch it off and remove what `install` wrote. Configuration, key and state stay."""
    service = service_of(config_file)
    unit = service.unit
    is_active = service.properties().get("ActiveState") not in ("inactive", "failed")
    is_installed = is_active or os.path.lexists(unit.path) or os.path.lexists(unit.link)
    if is_installed:
        service.try_to("disable", "--quiet", "--now", "--", unit.name)
        service.try_to("stop", "--", unit.name)
    removed = _remove(unit.drop_in, unit)
    if others := _other_instances(service):
        click.echo(f"{shown_path(unit.path)} stays: {', '.join(others)} needs it")
    else:
        removed += _remove(unit.path, unit)
    for folder in (os.path.dirname(unit.drop_in), unit.folder, os.path.dirname(unit.folder)):
        with suppress(OSError):  # it is not empty, or missing
            os.rmdir(folder)
    if is_installed or removed:
        service.do("daemon-reload")
        service.try_to("reset-failed", "--", unit.name)
    for path in removed:
        click.echo(f"removed {shown_path(path)}")
    click.echo(f"{unit.name} is {'stopped and switched off' if is_installed else 'not installed'}")


@command.command("status")
@config_option
@json_option
def status(config_file: str | None, as_json: bool) -> int:
    """Show the service's state, how it last ended, its last log lines, and what to do.

    Ends with 0 if it runs, 75 if it is stopped or restarts by itself, 78 if a person has to act.

    --json: unit, state, pid (null if none runs), last_end, remedy, and log, its last lines.
    """
    service = service_of(config_file)
    key_file = default_key_file(os.environ)
    with suppress(SyncdError):
        key_file = configured(config_file).sandbox.api_key_file
    properties = service.properties()
    now = report_of(service, properties, key_file)
    if as_json:
        log = [_printable(line) for line in service.journal(_LOG_LINES)]
        found = {"unit": service.unit.name, "state": _printable(now.state), "pid": main_pid(properties)}
        click.echo(json.dumps({**found, "last_end": now.last, "remedy": _printable(now.remedy), "log": log}))
    else:
        _show(service, now, _LOG_LINES)
    return now.exit_code


@command.command("logs")
@config_option
@click.option("-f", "--follow", is_flag=True, help="Keep running, and show new lines.")
@click.option("-n", "lines", type=click.IntRange(0), default=100, show_default=True, help="The number of lines.")
def logs(config_file: str | None, follow: bool, lines: int) -> int:
    """Show the service's log, from the journal."""
    code = service_of(config_file).show_journal(str(lines), *(["--follow"] if follow else []))
    return ExitCode.TRY_LATER if code else ExitCode.DONE


def _show(service: UserService, now: Report, log_lines: int) -> None:
    """Print the state in the colour of its exit code, the last end, so many lines of the log, and what to do."""
    state = click.style(_printable(now.state), fg=_COLOURS[now.exit_code], bold=True)
    _print("service", f"{service.unit.name}: {state}")
    if now.last:
        _print("last end", now.last)
    for line in service.journal(log_lines) if log_lines else ():
        _print("log", _printable(line))
    if now.remedy:
        _print("to do", _printable(now.remedy))


def _print(name: str, text: str) -> None:
    click.echo(f"{click.style(f'{name:10}', dim=True)}  {text}")


def _printable(text: str) -> str:
    return one_line(redacted(text), 1000)


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


def _other_instances(service: UserService) -> list[str]:
    """The other units that need the template: those that are enabled or loaded."""
    unit = service.unit
    if unit.file == unit.name:
        return []
    wants = os.path.dirname(unit.link)
    enabled = os.listdir(wants) if os.path.isdir(wants) else []
    names = {*enabled, *service.loaded("syncd@*.service")} - {unit.name}
    return sorted(name for name in names if name.startswith("syncd@"))


def _changed_at(path: str) -> int:
    try:
        return int(os.stat(path).st_mtime)  # whole seconds, as in systemd
    except OSError:
        return 0
