"""`syncd service`: installs and removes the systemd user unit, and runs systemctl and journalctl on it.

Written is the shipped unit, fitted to a configuration and a machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NoReturn

import click
from msgspec import Struct

import syncd
from syncd.cli.options import BOOTED_BY_SYSTEMD, config_option, config_path, configured, option_for, shipped
from syncd.cli.output import CommandGroup, home_relative
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
# The path where pipx and similar tools put the command, in the shipped units.
_COMMAND = "ExecStart=%h/.local/bin/syncd "
_HEAD = """\
# Written by `syncd service install`, syncd {version}. Changes of your own: systemctl --user edit {name}
# What follows has sha256 {digest}
"""
_DIGEST = re.compile(r".*\n# What follows has sha256 ([0-9a-f]{64})\n")
_NOTIFY_RELOAD = 253  # the systemd that brought it
# Blanks in LoadCredential= keep systemd 257 from starting the service ("Failed to deserialize"); "\\" is eaten.
_UNSUPPORTED = re.compile(r"[\s\\]")
# Without a user namespace systemd ignores some of them and fails at others (they drop capabilities: 218), and where one
# can be made but not used (as AppArmor restricts it) all fail: so all are switched off.
SANDBOXING = r"(?:Private|Protect)\w+|\w+Paths|CapabilityBoundingSet"


class Unit(Struct, frozen=True):
    """A unit's `name`, the shipped `file` that it is made from, and the `folder` of a user's own units."""

    name: str
    file: str
    folder: str  # systemd.unit(5)

    @property
    def stem(self) -> str:
        """The name as systemctl takes it, too."""
        return self.name.removesuffix(".service")

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)

    @property
    def is_installed(self) -> bool:
        """True if it has a file, or is an instance of a template that was switched on by hand."""
        link = os.path.join(self.folder, "default.target.wants", self.name)
        return os.path.lexists(self.path) or os.path.lexists(link)


def unit_of(config_file: str, config_folder: str) -> Unit:
    """The unit for this configuration. Raises `ConfigError` for a file that no unit can name."""
    units = os.path.join(os.path.dirname(config_folder), "systemd", "user")
    folder, file = os.path.split(config_file)
    stem, extension = os.path.splitext(file)
    is_there = os.path.realpath(folder) == os.path.realpath(config_folder)
    if not is_there or extension != ".toml" or not re.fullmatch(r"[A-Za-z0-9_.-]+", stem):
        raise ConfigError(
            f"{config_file} cannot be a service's configuration",
            f"move it to {config_folder}/NAME.toml, with a NAME of letters, digits, '.', '_' and '-'",
        )
    if stem == "config":
        return Unit("syncd.service", "syncd.service", units)
    return Unit(f"syncd@{stem}.service", "syncd@.service", units)


def fitted(
    text: str, *, python: str, key_file: str, folders: Iterable[str], writable: Iterable[str] = (), version: int
) -> str:
    """A shipped unit for this interpreter, configuration and systemd, without its comment on manual use.

    `folders` are those of state and cache, `writable` those beside them that it writes to, if they are there. Paths are
    absolute, and may have any characters.
    """
    text = text[text.index("\n[Unit]") :]
    # ":": nothing in the path is expanded. -P: a folder called syncd in the home directory is not imported.
    text = text.replace(_COMMAND, f"ExecStart=:{quoted(python)} -P -m syncd ")
    # Before systemd 254 a user's %S was the configuration folder.
    text = text.replace("%S/syncd %C/syncd", " ".join(map(quoted, folders)))
    more = "".join(f"{quoted(f'-{path}')} " for path in writable)
    text = text.replace("\nReadWritePaths=", f"\nReadWritePaths={more}")
    text = text.replace(":%E/syncd/api-key", f":{key_file.replace('%', '%%')}")
    text = text.replace("-%E/syncd/api-key", quoted(f"-{key_file}"))
    if _UNSUPPORTED.search(key_file):
        text = switched_off(text, "LoadCredential|SetCredential|InaccessiblePaths")
    if version < _NOTIFY_RELOAD:
        text = text.replace("Type=notify-reload\n", "Type=notify\nExecReload=kill -HUP $MAINPID\n")
    return text


def switched_off(text: str, names: str) -> str:
    """The unit with the settings of these names, a regular expression, as comments."""
    return re.sub(rf"^(?:{names})=", r"# \g<0>", text, flags=re.MULTILINE)


def with_digest(text: str, name: str) -> str:
    """The text after a head with its digest, by which a change shows."""
    return _HEAD.format(version=syncd.__version__, name=name, digest=hashlib.sha256(text.encode()).hexdigest()) + text


def is_as_written(found: str, original: str) -> bool:
    """True if a file is as an installation wrote it, or a copy of the shipped one, `original`."""
    digest = _DIGEST.match(found)
    is_installed = digest is not None and hashlib.sha256(found[digest.end() :].encode()).hexdigest() == digest[1]
    return is_installed or found == original


def quoted(word: str) -> str:
    """One word of a unit file's line, as systemd.syntax(7) quotes it; "%" would begin a specifier."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return f'"{escaped}"'


# A start may take the unit's own TimeoutStartSec=, 5 minutes.
_LONGEST_S = 330.0
# systemd.exec(5): USER, CAPABILITIES, NAMESPACE.
_NO_SANDBOXING = (217, 218, 226)


class UserService:
    """The unit of a configuration in the systemd of this user.

    `option` is the ` --config FILE` of the commands that are named to a person. Raises `SyncdError` where no systemd
    answers, or where no unit can have such a path.
    """

    def __init__(self, config_file: str | None) -> None:
        path = config_path(config_file)
        self.unit = unit_of(path, os.path.dirname(default_config_path(os.environ)))
        self.option = option_for(path)
        # cron, su and ssh without a session do not set it, though the manager runs.
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        self._environ = {**os.environ, "XDG_RUNTIME_DIR": runtime}
        result = self._run("systemctl", "--user", "show-environment")
        if result.returncode != 0:
            if not os.path.isdir(BOOTED_BY_SYSTEMD):
                what = "this machine is not run by systemd (a container?)"
                raise NeedsPerson(what, "start `syncd run` by cron, or by what starts programs here")
            why = (result.stderr.strip().splitlines() or ["no answer"])[0]
            raise NeedsPerson(
                f"no systemd user manager answers ({why})",
                "log in as this user, not by su or sudo, or run `sudo loginctl enable-linger $USER`",
            )
        self.environ = dict(line.partition("=")[::2] for line in result.stdout.splitlines())

    def become(self, *command: str) -> NoReturn:
        """Run a program of systemd's in the place of this one."""
        sys.stdout.flush()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it
        try:
            os.execvpe(command[0], command, self._environ)  # noqa: S606 - no shell is wanted
        except OSError as failure:
            what = f"{command[0]} cannot be run ({failure.strerror})"
            raise NeedsPerson(what, "install what is missing of systemd") from None

    def version(self) -> int:
        found = re.match(r"systemd (\d+)", self._run("systemctl", "--version").stdout)
        return int(found[1]) if found else 0

    def do(self, *arguments: str) -> None:
        """Run `systemctl --user ARGUMENTS`. Raises `TryLater` with systemd's own message."""
        result = self._run("systemctl", "--user", *arguments)
        if result.returncode != 0:
            why = (result.stderr.strip().splitlines() or [f"exit {result.returncode}"])[-1]
            raise TryLater(f"systemctl --user {' '.join(arguments)} failed ({why})", "see `syncd service status`")

    def try_to(self, *verb: str) -> None:
        """Run `systemctl --user VERB` on the unit; what comes of it is in its properties."""
        self._run("systemctl", "--user", *verb, "--", self.unit.name)

    def check_started(self) -> None:
        """Raise `TryLater` if systemd tries the start again by itself, and `NeedsPerson` if it does not."""
        query = ("-p", "ActiveState,ExecMainStatus", "--", self.unit.name)
        lines = self._run("systemctl", "--user", "show", *query).stdout.splitlines()
        shown = dict(line.partition("=")[::2] for line in lines)
        state = shown.get("ActiveState", "")
        if state == "active":
            return
        see = f"see `syncd service logs{self.option}`; `syncd check{self.option}` tries all that it needs"
        what = f"{self.unit.name} did not start (exit {shown.get('ExecMainStatus', '')})"
        if state == "activating":
            raise TryLater(f"{what}, and is tried again", see)
        raise NeedsPerson(what, see)

    def supports_sandboxing(self) -> bool:
        """True if a unit gets the user namespace that its sandbox needs: tried with a unit that does nothing."""
        sandboxing = ("-p", "PrivateUsers=yes", "-p", "ProtectSystem=strict", "-p", "ProtectHome=read-only")
        result = self._run("systemd-run", "--user", "--wait", "--collect", "--quiet", *sandboxing, "true")
        return result.returncode not in _NO_SANDBOXING  # the start of the service shows other failures

    def ends_at_logout(self) -> bool:
        """True if services end with the user's last session."""
        linger = self._run("loginctl", "show-user", str(os.getuid()), "-p", "Linger", "--value")
        return linger.stdout.strip() == "no"

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                env={**self._environ, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_LONGEST_S,
                check=False,
            )
        except FileNotFoundError:
            return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not on this machine")
        except subprocess.TimeoutExpired:
            raise TryLater(f"{' '.join(command[:3])} takes longer than {_LONGEST_S:.0f} s", "try again") from None


@click.group("service", cls=CommandGroup)
def command() -> None:
    """Keep syncd running at every login, as a systemd user unit.

    \b
    syncd service install    after an upgrade, too
    syncd service logs -f    what it does, as it does it

    The default configuration is the unit syncd, ~/.config/syncd/NAME.toml is syncd@NAME.
    """


@command.command("install")
@config_option
def install(config_file: str | None) -> None:
    """Write the unit, switch it on, and start it anew.

    \b
    syncd service install --config site    as syncd@site

    A unit that a person edited is left as it is. Ends with 0 once the daemon is ready.
    """
    service = UserService(config_file)
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
            f"put your changes into `systemctl --user edit {unit.stem}`, remove the file, then `syncd service install`",
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
    click.echo(f"wrote {home_relative(shown_path(unit.path))}")
    service.do("reenable", "--quiet", "--no-reload", "--", unit.name)
    service.do("daemon-reload")
    service.try_to("reset-failed")
    service.try_to("restart")
    service.check_started()
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
    service = UserService(config_file)
    unit = service.unit
    found = "stopped and switched off" if os.path.lexists(unit.path) else "not installed"
    service.try_to("disable", "--quiet", "--now")
    service.try_to("stop")  # where it was not enabled
    if _is_edited(unit):
        click.echo(f"{home_relative(shown_path(unit.path))} is not as syncd wrote it and stays")
    else:
        with suppress(FileNotFoundError):
            os.unlink(unit.path)
            click.echo(f"removed {home_relative(shown_path(unit.path))}")
    service.do("daemon-reload")
    service.try_to("reset-failed")
    click.echo(f"{unit.name} is {found}")


def _pass_on(verb: str, does: str, example: str = "", program: str = "systemctl") -> None:
    """Add the command that runs a program of systemd's on the unit, with all its own options and its exit code."""
    whole = f"{program} --user {'-u' if program == 'journalctl' else verb}"

    text = f"{does}.\n\n\b\nsyncd service {verb}{example}\n\nIt runs `{whole}` on the unit."

    @command.command(verb, help=text, context_settings={"ignore_unknown_options": True})
    @config_option
    @click.argument("options", metavar=f"[{program.upper()}-OPTION]...", nargs=-1, type=click.UNPROCESSED)
    def run(config_file: str | None, options: tuple[str, ...]) -> None:
        service = UserService(config_file)
        words = (verb, *options, "--") if program == "systemctl" else (*options, "-u")
        service.become(program, "--user", *words, service.unit.name)


_pass_on("start", "Start the service")
_pass_on("stop", "Stop the service until the next login")
_pass_on("restart", "Stop and start the service, with a new key")
_pass_on("status", "Show if the service runs, and its last log lines", " --full    uncut")
_pass_on("logs", "Show the service's log", " -f -n 50", "journalctl")


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
            return not is_as_written(file.read(), shipped(unit.file))
    except FileNotFoundError:
        return os.path.islink(unit.path)  # as `systemctl mask` of another place leaves
