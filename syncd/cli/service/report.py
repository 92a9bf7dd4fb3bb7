"""Describes the service by its properties in systemd: its state, how it last ended, and what to do."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct

from syncd.cli.service.unit import Unit
from syncd.core.errors import ExitCode

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "StatusText",
    "MainPID",
    "NRestarts",
    "UnitFileState",
    "NeedDaemonReload",
    "ExecMainCode",
    "ExecMainStatus",
    "ExecMainStartTimestamp",
    "ExecStartPre",
    "DropInPaths",
    "Environment",
)
_EXITED = "1"  # CLD_EXITED of waitid(2); 2 and 3 are signals
_EXIT_REASONS = {
    1: "Python could not run syncd",
    ExitCode.WRONG_USAGE: "syncd does not know the command that the unit gives it",
    ExitCode.TRY_LATER: "could not finish, but may later",
    ExitCode.NEEDS_PERSON: "a person has to change something",
    203: "its program cannot be run",
    217: "this machine refuses user namespaces",
    218: "this machine refuses user namespaces",
    226: "its sandbox cannot be made",
    243: "systemd cannot read the API key file",
}
# Failures before the daemon's first line: those of Python and click, then systemd's own. systemd tries again, in vain.
_PERMANENT = (1, ExitCode.WRONG_USAGE, 203, 217, 218, 226, 243)
_MKDIR_FAILED = 1
_PREPARATION_EXIT = re.compile(r"code=exited ; status=(\d+)")
_RUNNING, _TRY_LATER, _NEEDS_PERSON = ExitCode.DONE, ExitCode.TRY_LATER, ExitCode.NEEDS_PERSON


class Report(Struct, frozen=True):
    """The service's `state`, its `last` end (empty: none), and the `remedy` (empty: nothing to do)."""

    state: str
    last: str
    remedy: str
    exit_code: ExitCode


def report(unit: Unit, properties: Mapping[str, str], option: str, key_file: str, key_changed_at: int) -> Report:
    """Describe the unit by its properties.

    `option` is the ` --config FILE` of the commands named; `key_changed_at` (since 1970) is 0 if there is no key.
    """
    restart = f"systemctl --user restart {_stem(unit)}"
    state, sub_state = properties.get("ActiveState", ""), properties.get("SubState", "")
    last = _last_end(properties)
    if properties.get("LoadState") == "masked":
        return Report(
            "masked: a person switched it off", "", f"systemctl --user unmask {_stem(unit)}", ExitCode.NEEDS_PERSON
        )
    if properties.get("LoadState") in ("bad-setting", "error"):
        see = f"systemd-analyze --user verify {unit.name} tells where; correct it, then: systemctl --user daemon-reload"
        return Report("systemd does not understand its unit", last, see, _NEEDS_PERSON)
    if properties.get("LoadState") != "loaded":
        if state in ("active", "activating"):
            return Report(
                "running, but its unit is missing", last, f"syncd service install{option}", ExitCode.NEEDS_PERSON
            )
        return Report("not installed", "", f"syncd service install{option}", _NEEDS_PERSON)
    if state in ("active", "reloading"):
        text = f"running as process {properties.get('MainPID', '?')}"
        text += f": {status_text}" if (status_text := properties.get("StatusText", "")) else ""
        remedy = "systemctl --user daemon-reload" if properties.get("NeedDaemonReload") == "yes" else ""
        if properties.get("UnitFileState") == "disabled":
            remedy = f"it will not start at the next login: systemctl --user enable {_stem(unit)}"
        if properties.get("StatusText", "").startswith("held"):
            remedy = f"see `syncd status{option}`"
        if key_changed_at > started_at(properties) > 0:
            remedy = f"the key file changed since it started: {restart}"
        return Report(text, last, remedy, _RUNNING)
    if state == "activating" and sub_state == "auto-restart":
        if _status(properties) in _PERMANENT:
            return Report(
                "fails at each start", last, _remedy(properties, restart, option, key_file), ExitCode.NEEDS_PERSON
            )
        return Report(
            "restarts by itself, each time later", last, f"nothing; or at once: {restart}", ExitCode.TRY_LATER
        )
    if state == "failed":
        return Report(
            "failed, and stays so", last, _remedy(properties, restart, option, key_file), ExitCode.NEEDS_PERSON
        )
    if state in ("activating", "deactivating"):
        return Report("starting" if state == "activating" else "stopping", last, "", _TRY_LATER)
    return Report("stopped", last, restart, _TRY_LATER)


def _stem(unit: Unit) -> str:
    return unit.name.removesuffix(".service")


def started_at(properties: Mapping[str, str]) -> int:
    """The start of its process, in seconds since 1970; 0: never started."""
    with suppress(ValueError):
        return int(properties.get("ExecMainStartTimestamp", "").removeprefix("@"))
    return 0


def _last_end(properties: Mapping[str, str]) -> str:
    if properties.get("Result") == "watchdog":
        return "it hung, and the watchdog ended it"
    if properties.get("Result") == "timeout":
        return "it did not start or stop in time"
    code, status = properties.get("ExecMainCode", "0"), _status(properties)
    restarts = properties.get("NRestarts", "0")
    if _preparation_status(properties) == _MKDIR_FAILED:
        end = "its state and cache folders cannot be made"
    elif _preparation_status(properties) or (code == _EXITED and status != 0):
        end = f"exit {status}: {_EXIT_REASONS.get(status, 'see the log')}"
    elif code not in ("0", _EXITED):
        end = f"killed by {_signal_name(status)}"
    else:
        end = ""
    count = f"{restarts} restarts" if restarts not in ("0", "") else ""
    return "; ".join(filter(None, (end, count)))


def _preparation_status(properties: Mapping[str, str]) -> int:
    """The exit status of ExecStartPre=, after whose failure the daemon is not started; 0: it succeeded."""
    found = _PREPARATION_EXIT.search(properties.get("ExecStartPre", ""))
    return int(found[1]) if found else 0


def _status(properties: Mapping[str, str]) -> int:
    return _preparation_status(properties) or int(properties.get("ExecMainStatus") or 0)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _remedy(properties: Mapping[str, str], restart: str, option: str, key_file: str) -> str:
    if _preparation_status(properties) == _MKDIR_FAILED:
        return f"correct what the log says, then: {restart}"
    match _status(properties):
        case 1:
            return f"install syncd again, then: syncd service install{option}"
        case ExitCode.WRONG_USAGE:
            return f"syncd service install{option}"
        case ExitCode.NEEDS_PERSON:
            return f"correct what the log says (`syncd check{option}` tries everything), then: {restart}"
        case 243:
            return f"let your own user read {key_file}; it tries again by itself"
        case 203:
            return f"syncd service install{option}, from where syncd is now"
        case 217 | 218 | 226:
            return f"syncd service install{option}, which checks what this machine allows"
        case _:
            return f"see `syncd service logs{option}`, then: {restart}"
