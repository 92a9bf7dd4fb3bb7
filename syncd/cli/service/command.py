"""`syncd service`: installs, removes and inspects the systemd user unit."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress

import click
from msgspec import Struct

import syncd
from syncd.cli.options import config_option, config_path, configured, option_for
from syncd.cli.service.advice import advice
from syncd.cli.service.report import PROPERTIES, Report, report, started_at
from syncd.cli.service.screen import headline, log_rows, show, to_do_rows
from syncd.cli.service.systemd import UserManager, environment_in
from syncd.cli.service.unit import (
    DROP_IN,
    Unit,
    UnitContext,
    drop_in,
    fitted,
    is_unchanged,
    shipped,
    unit_of,
    with_digest,
)
from syncd.core.api_key import find_key
from syncd.core.config_lookup import config_files
from syncd.core.directories import default_config_path
from syncd.core.errors import ConfigError, ExitCode, KeyRefused, SyncdError
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.selection.git_repository import repository_around

_LOG_LINES = 5
# They set the folders of the daemon and of commands, so both must have the same.
_SHARED = {"XDG_CONFIG_HOME": ".config", "XDG_STATE_HOME": ".local/state", "XDG_CACHE_HOME": ".cache"}


class InstalledService(Struct, frozen=True):
    """The unit of a configuration, and the manager that runs it."""

    manager: UserManager
    unit: Unit
    config_file: str
    option: str  # ` --config FILE`, for commands that are named to a person

    @property
    def units_folder(self) -> str:
        """The folder of a user's own units (systemd.unit(5))."""
        return os.path.join(os.path.dirname(os.path.dirname(default_config_path(os.environ))), "systemd", "user")

    @property
    def wants_folder(self) -> str:
        """The folder of links to the units that are started at each login."""
        return os.path.join(self.units_folder, "default.target.wants")

    @property
    def unit_file(self) -> str:
        """The unit file; that of the template, for an instance."""
        return os.path.join(self.units_folder, self.unit.file)

    @property
    def mark(self) -> str:
        """The path that is there if it is installed: instances share the unit file, but each has a link of its own."""
        is_alone = self.unit.file == self.unit.name
        return self.unit_file if is_alone else os.path.join(self.wants_folder, self.unit.name)

    @property
    def drop_in_file(self) -> str:
        """The file with the settings for this configuration and machine."""
        return os.path.join(self.units_folder, f"{self.unit.name}.d", DROP_IN)

    def properties(self) -> dict[str, str]:
        """The unit's properties in systemd."""
        return self.manager.show(self.unit.name, PROPERTIES)

    def environ(self, properties: Mapping[str, str]) -> dict[str, str]:
        """The environment of its process: the manager's, and what its unit sets."""
        return self.manager.environ | environment_in(properties.get("Environment", "").replace(" ", "\n"))

    def report(self, properties: Mapping[str, str], key_file: str) -> Report:
        """Describe it by its properties."""
        return report(self.unit, properties, self.option, key_file, _changed_at(key_file))


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
    if not os.path.isdir(config.workspace.path):
        # The daemon would report it too, but only after it is ready, when this command has ended.
        raise ConfigError(
            f"the workspace {config.workspace.path!r} does not exist", "make it, or correct workspace.path"
        )
    _check_same_folders(service.manager)
    key_file = _usable_key_file(config, service.manager)
    version, state_home = service.manager.version(), service.manager.environ.get("XDG_STATE_HOME", "")
    text = with_digest(fitted(shipped(service.unit.file), _python(), version, state_home), _stem(service.unit.name))
    context = UnitContext(
        config_folder=os.path.dirname(default_config_path(os.environ)),
        key_file=key_file,
        visible=(
            config.workspace.path,
            *_repository_of(config.workspace.path),
            *_installation(),
            os.path.dirname(service.config_file),
        ),
        sandboxing=service.manager.supports_sandboxing(),
    )
    extra = drop_in(context)
    extra = with_digest(extra, _stem(service.unit.name)) if extra else ""
    for path in (service.unit_file, service.drop_in_file):
        _refuse_edited(path, service.unit)
    written = [
        path for path, wanted in ((service.unit_file, text), (service.drop_in_file, extra)) if _write(path, wanted)
    ]
    manager = service.manager
    manager.do("enable", "--quiet", "--no-reload", "--", service.unit.name)
    manager.do("daemon-reload")
    before = service.properties()
    started = bool(written) or before.get("ActiveState") != "active" or _changed_at(key_file) > started_at(before)
    if started:
        manager.try_to("reset-failed", "--", service.unit.name)
        manager.try_to("restart", "--", service.unit.name)
    for path in written:
        click.echo(f"{'wrote' if os.path.lexists(path) else 'removed'} {shown_path(path)}")
    now = service.report(service.properties(), key_file)
    if not started:
        click.echo(f"{service.unit.name} is up to date and runs")
    _show(service, now, _LOG_LINES if now.exit_code else 0)
    for what, remedy in advice(
        service.manager, config, service.environ(service.properties()), sandboxing=context.sandboxing
    ):
        show([("note", what), *to_do_rows(remedy)])
    click.echo(f"look at it: syncd service status{service.option}")
    click.echo(f"undo it: syncd service uninstall{service.option}")
    return now.exit_code


@command.command("uninstall")
@config_option
def uninstall(config_file: str | None) -> None:
    """Stop the service, switch it off and remove what `install` wrote. Configuration, key and state stay."""
    service = service_of(config_file)
    manager = service.manager
    files = (service.unit_file, os.path.join(service.wants_folder, service.unit.name))
    is_active = service.properties().get("ActiveState") not in ("inactive", "failed")
    is_installed = any(map(os.path.lexists, files)) or is_active
    if is_installed:
        manager.try_to("disable", "--quiet", "--now", "--", service.unit.name)
        manager.try_to("stop", "--", service.unit.name)
    removed = _remove(service.drop_in_file, service.unit)
    with suppress(OSError):
        os.rmdir(os.path.dirname(service.drop_in_file))
    others = _other_instances(service)
    if others:
        click.echo(f"{shown_path(service.unit_file)} stays: {', '.join(others)} needs it")
    else:
        removed += _remove(service.unit_file, service.unit)
    for folder in (service.units_folder, os.path.dirname(service.units_folder)):
        with suppress(OSError):  # it is not empty, or missing
            os.rmdir(folder)
    if is_installed or removed:
        manager.do("daemon-reload")
        manager.try_to("reset-failed", "--", service.unit.name)
    for path in removed:
        click.echo(f"removed {shown_path(path)}")
    click.echo(f"{service.unit.name} is {'stopped and switched off' if is_installed else 'not installed'}")


@command.command("status")
@config_option
@click.option("--all", "all_", is_flag=True, help="A line for each configuration in ~/.config/syncd.")
def status(config_file: str | None, all_: bool) -> int:
    """Show the service's state, how it last ended, its last log lines, and what to do.

    Ends with 0 if it runs, 75 if it is stopped or restarts by itself, 78 if a person has to act; with --all the highest
    of the installed ones.
    """
    if all_ and config_file:
        raise click.UsageError("--all does not go with --config.")
    if all_:
        return max((_show_line(file) for file in config_files(os.environ)), default=0)
    service = service_of(config_file)
    key_file = os.path.join(os.path.dirname(service.config_file), "api-key")
    with suppress(SyncdError):
        key_file = configured(config_file).sandbox.api_key_file
    now = service.report(service.properties(), key_file)
    _show(service, now, _LOG_LINES)
    return now.exit_code


@command.command("logs")
@config_option
@click.option("-f", "--follow", is_flag=True, help="Keep running, and show new lines.")
@click.option("-n", "lines", type=click.IntRange(0), default=100, show_default=True, help="The number of lines.")
def logs(config_file: str | None, follow: bool, lines: int) -> int:
    """Show the service's log, from the journal."""
    service = service_of(config_file)
    code = service.manager.show_journal(service.unit.name, lines, follow=follow)
    return ExitCode.TRY_LATER if code else ExitCode.DONE


def _show_line(config_file: str) -> int:
    """Print a service's state on one line; returns its exit code, 0 if it is not installed."""
    try:
        service = service_of(config_file)
    except ConfigError as failure:  # its name is none for a unit
        show([("service", failure.message)])
        return ExitCode.DONE
    now = service.report(service.properties(), "")
    if now.exit_code and not os.path.lexists(service.mark):
        show([("service", f"{service.unit.name}: not installed")])
        return ExitCode.DONE
    show([headline(service.unit.name, now)])
    return now.exit_code


def service_of(config_file: str | None) -> InstalledService:
    """The unit of this configuration. Raises `SyncdError` if there is no systemd, or no unit for such a path."""
    path = config_path(config_file)
    unit = unit_of(path, os.path.dirname(default_config_path(os.environ)))
    return InstalledService(UserManager(os.environ), unit, path, option_for(path))


def _check_same_folders(manager: UserManager) -> None:
    """Raise `ConfigError` where the daemon would have other folders than commands from this shell."""
    for name, fallback in _SHARED.items():
        default = os.path.join(os.path.expanduser("~"), fallback)
        ours, theirs = os.environ.get(name) or default, manager.environ.get(name) or default
        if os.path.normpath(ours) != os.path.normpath(theirs):
            raise ConfigError(
                f"{name} is {ours} here and {theirs} in the service manager",
                "give both the same in ~/.config/environment.d/, then log in again",
            )


def _usable_key_file(config: Config, manager: UserManager) -> str:
    """The file from which the service manager reads the key. Raises `KeyRefused` if there is no key for it."""
    key_file = config.sandbox.api_key_file
    if manager.environ.get("KLAVIS_API_KEY") and not os.path.lexists(key_file):
        return key_file
    try:
        find_key({}, key_file)
    except KeyRefused as refused:
        if os.environ.get("KLAVIS_API_KEY") and not os.path.lexists(key_file):
            raise KeyRefused(
                "a service does not see $KLAVIS_API_KEY", f"put the key into {key_file}, mode 0600"
            ) from None
        raise refused from None
    return key_file


def _python() -> str:
    """This interpreter, not resolved: that of a venv is a link to one that does not have syncd."""
    return os.path.abspath(sys.executable)


def _repository_of(workspace: str) -> tuple[str, ...]:
    """The folder of the repository around the workspace, which a linked work tree has outside of itself."""
    try:
        repository = repository_around(workspace)
    except OSError:
        return ()  # the daemon reports it
    return (repository.folder,) if repository is not None else ()


def _installation() -> tuple[str, ...]:
    """The folders of the program: the venv, the Python that it was made with, and syncd, if that is a checkout."""
    return sys.prefix, sys.base_prefix, os.path.dirname(os.path.abspath(syncd.__file__))


def _is_masked(path: str) -> bool:
    return os.path.islink(path) and os.path.realpath(path) == os.devnull


def _refuse_edited(path: str, unit: Unit) -> None:
    found = _content(path)
    if _is_masked(path):
        raise ConfigError(
            f"{unit.name} is masked, as a person switched it off",
            f"systemctl --user unmask {_stem(unit.name)}, then again",
        )
    if found is not None and not is_unchanged(found, _originals(unit)):
        raise ConfigError(
            f"{path} is not as syncd wrote it and is left alone",
            f"put your changes into `systemctl --user edit {_stem(unit.name)}`, remove the file and install again",
        )


def _originals(unit: Unit) -> tuple[str, ...]:
    return (shipped(unit.file),)


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
    found = _content(path)
    if (found or "") == text:
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
    found = _content(path)
    if found is None:
        return []
    if not is_unchanged(found, _originals(unit)):
        why = "masks the unit" if _is_masked(path) else "is not as syncd wrote it"
        click.echo(f"{shown_path(path)} {why} and stays")
        return []
    os.unlink(path)
    return [path]


def _other_instances(service: InstalledService) -> list[str]:
    """The other units that need the template: those that are enabled or loaded."""
    if service.unit.file == service.unit.name:
        return []
    enabled = os.listdir(service.wants_folder) if os.path.isdir(service.wants_folder) else []
    names = {*enabled, *service.manager.loaded("syncd@*.service")} - {service.unit.name}
    return sorted(name for name in names if name.startswith("syncd@"))


def _changed_at(path: str) -> int:
    try:
        return int(os.stat(path).st_mtime)  # whole seconds, as in systemd
    except OSError:
        return ExitCode.DONE


def _show(service: InstalledService, now: Report, lines: int) -> None:
    rows = [headline(service.unit.name, now)]
    rows += [("last end", now.last)] if now.last else []
    rows += log_rows(service.manager.journal(service.unit.name, lines)) if lines else []
    show([*rows, *to_do_rows(now.remedy)])


def _stem(name: str) -> str:
    return name.removesuffix(".service")
