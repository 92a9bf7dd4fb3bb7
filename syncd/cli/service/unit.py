"""The unit of a configuration: its name, its text for this machine, and the check that a file is unchanged."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable

from msgspec import Struct

import syncd
from syncd.cli.options import shipped
from syncd.core.api_key import CREDENTIAL
from syncd.core.errors import ConfigError

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
        """The path of the file."""
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


def settings_for(key_file: str, *, usual_key_file: str, visible: Iterable[str], sandboxing: bool) -> str:
    """The settings for this configuration and machine; empty if there are none. All paths are absolute.

    `visible` are paths that the service must see: workspace, interpreter. `sandboxing`: a unit gets a user namespace.
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
