"""What systemd knows of the service, in words: how it is, how it last ended, and what to do about it."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from syncd.cli.service.unit import Unit

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
)
_EXITED = "1"  # CLD_EXITED of waitid(2); 2 and 3 are signals
_WENT_WRONG = {
    1: "Python could not run syncd",
    2: "syncd does not know the command that the unit gives it",
    75: "could not finish, but may later",
    78: "a person has to change something",
    203: "its program cannot be run",
    217: "this machine refuses user namespaces",
    218: "this machine refuses user namespaces",
    226: "its sandbox cannot be made",
    243: "systemd cannot read the API key file",
}
# From before the daemon's first line: Python's and click's, then systemd's own. It is tried again all the same.
_NOT_BY_ITSELF = (1, 2, 203, 217, 218, 226, 243)
_NO_FOLDERS = 1  # mkdir(1)
_PREPARED = re.compile(r"code=exited ; status=(\d+)")
_FINE, _MAY_PASS, _NEEDS_PERSON = 0, 75, 78


@dataclass(frozen=True)
class Report:
    """`how` it is, `last` how it ended before (empty: it did not), `remedy` what to do (empty: nothing)."""

    how: str
    last: str
    remedy: str
    exit_code: int


def report(unit: Unit, properties: Mapping[str, str], option: str, key_file: str, key_changed_at: int) -> Report:
    """`option` is the ` --config FILE` of the commands named; `key_changed_at` (since 1970) is 0 if there is no key."""
    again = f"systemctl --user restart {_stem(unit)}"
    state, part = properties.get("ActiveState", ""), properties.get("SubState", "")
    last = _last_end(properties)
    if properties.get("LoadState") == "masked":
        return Report("masked: a person switched it off", "", f"systemctl --user unmask {_stem(unit)}", _NEEDS_PERSON)
    if properties.get("LoadState") in ("bad-setting", "error"):
        see = f"systemd-analyze --user verify {unit.name} tells where; mend it, then: systemctl --user daemon-reload"
        return Report("systemd does not understand its unit", last, see, _NEEDS_PERSON)
    if properties.get("LoadState") != "loaded":
        if state in ("active", "activating"):
            return Report("running, but its unit is gone", last, f"syncd service install{option}", _NEEDS_PERSON)
        return Report("not installed", "", f"syncd service install{option}", _NEEDS_PERSON)
    if state in ("active", "reloading"):
        how = f"running as process {properties.get('MainPID', '?')}"
        how += f": {text}" if (text := properties.get("StatusText", "")) else ""
        remedy = "systemctl --user daemon-reload" if properties.get("NeedDaemonReload") == "yes" else ""
        if properties.get("UnitFileState") == "disabled":
            remedy = f"it will not start at the next login: systemctl --user enable {_stem(unit)}"
        if properties.get("StatusText", "").startswith("held"):
            remedy = f"see `syncd status{option}`"
        if key_changed_at > started_at(properties) > 0:
            remedy = f"the key file changed since it started: {again}"
        return Report(how, last, remedy, _FINE)
    if state == "activating" and part == "auto-restart":
        if _status(properties) in _NOT_BY_ITSELF:
            return Report("fails at each start", last, _remedy(properties, again, option, key_file), _NEEDS_PERSON)
        return Report("restarts by itself, each time later", last, f"nothing; or at once: {again}", _MAY_PASS)
    if state == "failed":
        return Report("failed, and stays so", last, _remedy(properties, again, option, key_file), _NEEDS_PERSON)
    if state in ("activating", "deactivating"):
        return Report(state.replace("activating", "starting").replace("destarting", "stopping"), last, "", _MAY_PASS)
    return Report("stopped", last, again, _MAY_PASS)


def _stem(unit: Unit) -> str:
    return unit.name.removesuffix(".service")


def started_at(properties: Mapping[str, str]) -> int:
    """When its process started, seconds since 1970; 0: never."""
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
    if _unprepared(properties) == _NO_FOLDERS:
        end = "its state and cache folders cannot be made"
    elif _unprepared(properties) or (code == _EXITED and status != 0):
        end = f"exit {status}: {_WENT_WRONG.get(status, 'see the log')}"
    elif code not in ("0", _EXITED):
        end = f"killed by {_signal_name(status)}"
    else:
        end = ""
    again = f"{restarts} restarts" if restarts not in ("0", "") else ""
    return "; ".join(filter(None, (end, again)))


def _unprepared(properties: Mapping[str, str]) -> int:
    """How what comes before the daemon failed, which then was not started at all; 0: it did not."""
    found = _PREPARED.search(properties.get("ExecStartPre", ""))
    return int(found[1]) if found else 0


def _status(properties: Mapping[str, str]) -> int:
    return _unprepared(properties) or int(properties.get("ExecMainStatus") or 0)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _remedy(properties: Mapping[str, str], again: str, option: str, key_file: str) -> str:
    if _unprepared(properties) == _NO_FOLDERS:
        return f"mend what the log says, then: {again}"
    match _status(properties):
        case 1:
            return f"install syncd again, then: syncd service install{option}"
        case 2:
            return f"syncd service install{option}"
        case 78:
            return f"mend what the log says (`syncd check{option}` tries everything), then: {again}"
        case 243:
            return f"let your own user read {key_file}; it tries again by itself"
        case 203:
            return f"syncd service install{option}, from where syncd is now"
        case 217 | 218 | 226:
            return f"syncd service install{option}, which looks at what this machine allows"
        case _:
            return f"see `syncd service logs{option}`, then: {again}"
