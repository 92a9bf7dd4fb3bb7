"""The unit of a configuration: its name, its text for this machine, and whether a file is still as it was written."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

import syncd
from syncd.core.api_key import CREDENTIAL
from syncd.core.errors import ConfigError, NeedsPerson

DROP_IN = "10-syncd.conf"
# Where pipx and its like put the command: what the units say until an installation knows better.
_COMMAND = "ExecStart=%h/.local/bin/syncd "
_MARK = "# Written by `syncd service install`, syncd {version}. Changes of your own: systemctl --user edit {name}\n"
_SEAL = "# What follows has sha256 "
_WRITTEN = re.compile(re.escape(_SEAL) + r"([0-9a-f]{64})\n")
# systemd's own NEWS: notify-reload came with 253, slower and slower restarts with 254.
_NOTIFY_RELOAD = 253
_RESTART_STEPS = 254
# Until then a user's %S was the configuration folder: systemd 252 on Debian 12 let the daemon write there only.
_STATE_OF_ITS_OWN = 254
_STATE = "%h/.local/state"
# Blanks in LoadCredential= keep systemd 257 from starting the service ("Failed to deserialize"); "\\" is eaten.
_ODD = re.compile(r"[\s\\]")
# Some are left out by systemd itself where there is no namespace, others fail (they drop capabilities: 218), and where
# one can be made but not used (as AppArmor restricts it) all do: so all of them go.
WALLS = (
    "PrivateUsers",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
)
_NO_KEY_FILE = ("LoadCredential=", "InaccessiblePaths=")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp= replaces


@dataclass(frozen=True)
class Unit:
    """`name` is what systemctl is asked about, `file` the unit file that it comes from: another one for an instance."""

    name: str
    file: str


@dataclass(frozen=True)
class UnitContext:
    """What the drop-in of a configuration depends on: absolute paths, and whether the manager can build walls."""

    config_folder: str
    key_file: str
    seen: tuple[str, ...]  # what the service must see: workspace, interpreter
    sandboxing: bool


def unit_of(config_file: str, config_folder: str) -> Unit:
    """The unit that runs with this configuration. Raises `ConfigError` for a file that no unit can name."""
    folder, file = os.path.split(config_file)
    stem, extension = os.path.splitext(file)
    if os.path.realpath(folder) != os.path.realpath(config_folder) or extension != ".toml":
        raise ConfigError(
            f"{config_file} cannot be a service's configuration", f"move it to {config_folder}/NAME.toml and name that"
        )
    if stem == "config":
        return Unit("syncd.service", "syncd.service")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", stem):
        raise ConfigError(
            f"{config_file} cannot be a service's configuration: systemd knows it by its name",
            "use letters, digits, '.', '_' and '-' in it",
        )
    return Unit(f"syncd@{stem}.service", "syncd@.service")


def shipped(file: str) -> str:
    """A unit as it was installed, or as it lies in a checkout. Raises `NeedsPerson`."""
    package = os.path.dirname(os.path.abspath(syncd.__file__))
    for folder in (os.path.join(package, "units"), os.path.join(os.path.dirname(package), "systemd")):
        try:
            with open(os.path.join(folder, file), encoding="utf-8") as unit:
                return unit.read()
        except FileNotFoundError:
            continue
    raise NeedsPerson(f"{file} is missing from this installation", "install syncd again")


def fitted(text: str, python: str, systemd_version: int, state_home: str = "") -> str:
    """A shipped unit for this interpreter (an absolute path) and this systemd, without the words on doing so by hand.

    Paths may hold anything; `state_home` is the manager's $XDG_STATE_HOME, empty where that is not set.
    """
    text = text[text.index("\n[Unit]") :]
    # ":": the path is taken as it is, whatever it holds. -P: a folder called syncd in the home directory is not syncd.
    text = text.replace(_COMMAND, f"ExecStart=:{quoted(python)} -P -m syncd ")
    if systemd_version < _NOTIFY_RELOAD:
        text = text.replace("Type=notify-reload\n", "Type=notify\nExecReload=kill -HUP $MAINPID\n")
    if systemd_version < _STATE_OF_ITS_OWN:
        text = text.replace("%S/syncd", quoted(f"{state_home}/syncd") if state_home else f"{_STATE}/syncd")
    if systemd_version < _RESTART_STEPS:
        text = re.sub(r"RestartSec=.*\nRestartSteps=.*\nRestartMaxDelaySec=.*\n", "RestartSec=15\n", text)
    return text


def drop_in(context: UnitContext) -> str:
    """What differs for this configuration or machine; empty where nothing does."""
    lines = []
    if _ODD.search(context.key_file):
        lines += ["# systemd cannot load from such a path: the service reads the file itself.", *_NO_KEY_FILE]
    elif context.key_file != os.path.join(context.config_folder, "api-key"):
        lines += [
            "# sandbox.api_key_file",
            *_NO_KEY_FILE,
            f"LoadCredential={CREDENTIAL}:{context.key_file.replace('%', '%%')}",
            f"InaccessiblePaths={quoted('-' + context.key_file)}",
        ]
    if context.sandboxing and any(_within(path, _TEMPORARY) for path in context.seen):
        lines += ["# Something that the service needs lies in there.", "PrivateTmp=no"]
    if not context.sandboxing:
        lines += [
            "# This machine refuses user namespaces, without which a user's manager builds no walls.",
            *(f"{name}=no" for name in WALLS),
            "CapabilityBoundingSet=~",
            "ReadWritePaths=",
            "InaccessiblePaths=",
        ]
    return "\n".join(["", "[Service]", *lines, ""]) if lines else ""


def sealed(text: str, name: str) -> str:
    """The text with a head that tells whose it is, and whether it was changed since."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _MARK.format(version=syncd.__version__, name=name) + f"{_SEAL}{digest}\n" + text


def is_unchanged(found: str, originals: Iterable[str] = ()) -> bool:
    """Whether a file is as an installation wrote it, or an untouched copy of a shipped one."""
    if found in originals:
        return True
    _, _, rest = found.partition("\n")
    seal = _WRITTEN.match(rest)
    return seal is not None and hashlib.sha256(rest[seal.end() :].encode()).hexdigest() == seal[1]


def quoted(word: str) -> str:
    """One word of a unit file's line, as systemd.syntax(7) quotes it; "%" would begin a specifier."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return f'"{escaped}"'


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)
