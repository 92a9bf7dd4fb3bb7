"""The systemd unit for a configuration and a machine, and the user's service manager, called through systemctl(1)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import NoReturn

from msgspec import Struct

import syncd
from syncd.cli.options import BOOTED_BY_SYSTEMD
from syncd.core.errors import ConfigError, NeedsPerson, TryLater

# The path where pipx and similar tools put the command, in the shipped units.
_COMMAND = "ExecStart=%h/.local/bin/syncd "
_HEAD = "# Written by `syncd service install`, syncd {version}. Changes of your own: systemctl --user edit {name}\n"
_DIGEST_LINE = "# What follows has sha256 "
_DIGEST = re.compile(re.escape(_DIGEST_LINE) + r"([0-9a-f]{64})\n")
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

    def state(self) -> tuple[str, str]:
        """The state of the unit, and the exit status of its last process."""
        query = ("-p", "ActiveState,ExecMainStatus", "--", self.unit.name)
        lines = self._run("systemctl", "--user", "show", *query).stdout.splitlines()
        shown = dict(line.partition("=")[::2] for line in lines)
        return shown.get("ActiveState", ""), shown.get("ExecMainStatus", "")

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
