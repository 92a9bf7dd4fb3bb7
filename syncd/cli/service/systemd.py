"""The systemd unit for a configuration and a machine, and the user's service manager, called through systemctl(1)."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NoReturn

from msgspec import Struct

import syncd
from syncd.cli.options import BOOTED_BY_SYSTEMD, shipped
from syncd.core.api_key import CREDENTIAL
from syncd.core.errors import ConfigError, NeedsPerson, TryLater

# The path where pipx and similar tools put the command, in the shipped units.
_COMMAND = "ExecStart=%h/.local/bin/syncd "
_HEAD = "# Written by `syncd service install`, syncd {version}. Changes of your own: systemctl --user edit {name}\n"
_DIGEST_LINE = "# What follows has sha256 "
_DIGEST = re.compile(re.escape(_DIGEST_LINE) + r"([0-9a-f]{64})\n")
# systemd's NEWS: notify-reload came with 253, RestartSteps= with 254.
_NOTIFY_RELOAD = 253
_RESTART_STEPS = 254
# Before it, a user's %S was the configuration folder: systemd 252 on Debian 12 let the daemon write there only.
_OWN_STATE_FOLDER = 254
_STATE = "%h/.local/state"
# Blanks in LoadCredential= keep systemd 257 from starting the service ("Failed to deserialize"); "\\" is eaten.
_UNSUPPORTED = re.compile(r"[\s\\]")
# Without a user namespace systemd ignores some of them and fails at others (they drop capabilities: 218), and where one
# can be made but not used (as AppArmor restricts it) all fail: so all are switched off.
_SANDBOXING = re.compile(r"^((?:Private|Protect)\w+)=", re.MULTILINE)
_NO_KEY_FILE = ("LoadCredential=", "InaccessiblePaths=")
_TEMPORARY = ("/tmp/", "/var/tmp/")  # noqa: S108 - what PrivateTmp= replaces


class Unit(Struct, frozen=True):
    """A unit's `name`, its `file`, that of the template for an instance, and the `folder` of a user's own units."""

    name: str
    file: str
    folder: str  # systemd.unit(5)

    @property
    def stem(self) -> str:
        """The name as systemctl takes it, too."""
        return self.name.removesuffix(".service")

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.file)

    @property
    def link(self) -> str:
        """The link among the units that are started at each login."""
        return os.path.join(self.folder, "default.target.wants", self.name)

    @property
    def drop_in(self) -> str:
        """The file with the settings for this configuration and machine."""
        return os.path.join(self.folder, f"{self.name}.d", "10-syncd.conf")

    @property
    def is_installed(self) -> bool:
        """True if it was installed: instances share a file, and each has its link."""
        return os.path.lexists(self.path if self.file == self.name else self.link)


def unit_of(config_file: str, config_folder: str) -> Unit:
    """The unit for this configuration. Raises `ConfigError` for a file that no unit can name."""
    units = os.path.join(os.path.dirname(config_folder), "systemd", "user")
    folder, file = os.path.split(config_file)
    stem, extension = os.path.splitext(file)
    if os.path.realpath(folder) != os.path.realpath(config_folder) or extension != ".toml":
        raise ConfigError(
            f"{config_file} cannot be a service's configuration", f"move it to {config_folder}/NAME.toml and name that"
        )
    if stem == "config":
        return Unit("syncd.service", "syncd.service", units)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", stem):
        raise ConfigError(
            f"{config_file} cannot be a service's configuration: systemd knows it by its name",
            "use letters, digits, '.', '_' and '-' in it",
        )
    return Unit(f"syncd@{stem}.service", "syncd@.service", units)


def fitted(text: str, python: str, systemd_version: int, state_home: str = "") -> str:
    """A shipped unit for this interpreter (an absolute path) and this systemd, without its comment on manual use.

    Paths may have any characters; `state_home` is the manager's $XDG_STATE_HOME, empty if unset.
    """
    text = text[text.index("\n[Unit]") :]
    # ":": nothing in the path is expanded. -P: a folder called syncd in the home directory is not imported.
    text = text.replace(_COMMAND, f"ExecStart=:{quoted(python)} -P -m syncd ")
    if systemd_version < _NOTIFY_RELOAD:
        text = text.replace("Type=notify-reload\n", "Type=notify\nExecReload=kill -HUP $MAINPID\n")
    if systemd_version < _OWN_STATE_FOLDER:
        text = text.replace("%S/syncd", quoted(f"{state_home}/syncd") if state_home else f"{_STATE}/syncd")
    if systemd_version < _RESTART_STEPS:
        text = re.sub(r"RestartSec=.*\nRestartSteps=.*\nRestartMaxDelaySec=.*\n", "RestartSec=15\n", text)
    return text


def settings_for(
    key_file: str, *, usual_key_file: str, visible: Iterable[str], writable: Iterable[str] = (), sandboxing: bool
) -> str:
    """The settings for this configuration and machine; empty if there are none. All paths are absolute.

    `visible` are paths that the service must see: workspace, interpreter. `writable` are those beside its own folders
    that it writes to, if they are there. `sandboxing`: a unit gets a user namespace.
    """
    lines = []
    if _UNSUPPORTED.search(key_file):
        lines += ["# systemd cannot load from such a path: the service reads the file itself.", *_NO_KEY_FILE]
    elif key_file != usual_key_file:
        lines += [
            "# sandbox.api_key_file",
            *_NO_KEY_FILE,
            f"LoadCredential={CREDENTIAL}:{key_file.replace('%', '%%')}",
            f"InaccessiblePaths={quoted('-' + key_file)}",
        ]
    if sandboxing and any(f"{path}/".startswith(_TEMPORARY) for path in visible):
        lines += ["# The service needs a path in there.", "PrivateTmp=no"]
    if words := [quoted(f"-{path}") for path in writable]:
        lines += ["# sandbox.follow_seconds", f"ReadWritePaths={' '.join(words)}"]
    if not sandboxing:
        lines += [
            "# This machine refuses user namespaces, without which it has no sandboxing.",
            *(f"{name}=no" for name in _SANDBOXING.findall(shipped("syncd.service"))),
            "CapabilityBoundingSet=~",
            "ReadWritePaths=",
            "InaccessiblePaths=",
        ]
    return "\n".join(["", "[Service]", *lines, ""]) if lines else ""


def with_digest(text: str, name: str) -> str:
    """The text after a head with its digest, by which a change shows; an empty one has no head."""
    if not text:
        return ""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _HEAD.format(version=syncd.__version__, name=name) + f"{_DIGEST_LINE}{digest}\n" + text


def is_unchanged(found: str, original: str) -> bool:
    """True if a file is as an installation wrote it, or a copy of the shipped one, `original`."""
    if found == original:
        return True
    _, _, rest = found.partition("\n")
    digest = _DIGEST.match(rest)
    return digest is not None and hashlib.sha256(rest[digest.end() :].encode()).hexdigest() == digest[1]


def quoted(word: str) -> str:
    """One word of a unit file's line, as systemd.syntax(7) quotes it; "%" would begin a specifier."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return f'"{escaped}"'


# A start may take the unit's own TimeoutStartSec=, 5 minutes.
_LONGEST_S = 330.0
# systemd.exec(5): USER, CAPABILITIES, NAMESPACE.
_NO_SANDBOXING = (217, 218, 226)
_ELSEWHERE = "have cron, or what starts programs here, run `syncd run`"
_PROPERTIES = "LoadState,ActiveState,ExecMainStatus,ExecMainStartTimestamp,Environment"


class UserService:
    """A unit in the systemd of this user; `option` is the ` --config FILE` of the commands that are named to a person.

    Raises `NeedsPerson` where no systemd answers.
    """

    def __init__(self, unit: Unit, option: str, environ: Mapping[str, str]) -> None:
        self.unit, self.option = unit, option
        # cron, su and ssh without a session do not set it, though the manager runs.
        runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        self._environ = {**environ, "XDG_RUNTIME_DIR": runtime}
        if shutil.which("systemctl") is None:
            raise NeedsPerson("there is no systemd on this machine", _ELSEWHERE)
        result = self._run("systemctl", "--user", "show-environment")
        if result.returncode != 0:
            if not os.path.isdir(BOOTED_BY_SYSTEMD):
                raise NeedsPerson("systemd is not what runs this machine (a container?)", _ELSEWHERE)
            why = (result.stderr.strip().splitlines() or ["no answer"])[0]
            raise NeedsPerson(
                f"no systemd user manager answers ({why})",
                f"log in as this user, not by su or sudo, or run `sudo loginctl enable-linger {user_name()}`",
            )
        self.environ = environment_in(result.stdout)

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

    def properties(self) -> dict[str, str]:
        """The unit's properties; a time is "@" and seconds since 1970."""
        query = ("--timestamp=unix", "-p", _PROPERTIES, "--", self.unit.name)
        result = self._run("systemctl", "--user", "show", *query)
        return dict(line.partition("=")[::2] for line in result.stdout.splitlines())

    def supports_sandboxing(self) -> bool:
        """True if a unit gets the user namespace that its sandbox needs: tried with a unit that does nothing."""
        sandboxing = ("-p", "PrivateUsers=yes", "-p", "ProtectSystem=strict", "-p", "ProtectHome=read-only")
        result = self._run("systemd-run", "--user", "--wait", "--collect", "--quiet", *sandboxing, "true")
        return result.returncode not in _NO_SANDBOXING  # the start of the service shows other failures

    def lingers(self) -> bool | None:
        """True if services run on after the last logout; None: unknown."""
        result = self._run("loginctl", "show-user", str(os.getuid()), "-p", "Linger", "--value")
        return {"yes": True, "no": False}.get(result.stdout.strip())

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


def user_name() -> str:
    """The name of this process's user, or its number if it has no name."""
    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def environment_in(text: str) -> dict[str, str]:
    """The variables that `systemctl show-environment` printed, quoted like $'…' of a shell where needed."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if value.startswith("$'") and value.endswith("'"):
            value = re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), value[2:-1])
        found[name] = value
    return found


def started_at(properties: Mapping[str, str]) -> int:
    """The start of its process, in seconds since 1970; 0: never started."""
    with suppress(ValueError):
        return int(properties.get("ExecMainStartTimestamp", "").removeprefix("@"))
    return 0
