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
    "Environment",
)
_EXITED = "1"  # CLD_EXITED of waitid(2); 2 and 3 are signals
# Reason and remedy by exit status: the daemon's own, Python's and click's before its first line, and systemd's.
_NO_NAMESPACES = "this machine refuses user namespaces"
_INSTALL_CHECKS = "syncd service install{option}, which checks what this machine allows"
_ENDS = {
    1: ("Python could not run syncd", "install syncd again, then: syncd service install{option}"),
    ExitCode.WRONG_USAGE: ("syncd does not know the command that the unit gives it", "syncd service install{option}"),
    ExitCode.TRY_LATER: ("could not finish, but may later", "see `syncd service logs{option}`, then: {restart}"),
    ExitCode.NEEDS_PERSON: (
        "a person has to change something",
        "correct what the log says (`syncd check{option}` tries everything), then: {restart}",
    ),
    203: ("its program cannot be run", "syncd service install{option}, from where syncd is now"),
    217: (_NO_NAMESPACES, _INSTALL_CHECKS),
    218: (_NO_NAMESPACES, _INSTALL_CHECKS),
    226: ("its sandbox cannot be made", _INSTALL_CHECKS),
    243: ("systemd cannot read the API key file", "let your own user read {key_file}; it tries again by itself"),
}
_ANY_END = ("see the log", "see `syncd service logs{option}`, then: {restart}")
# Failures that systemd tries again in vain.
_PERMANENT = _ENDS.keys() - {ExitCode.TRY_LATER, ExitCode.NEEDS_PERSON}
_MKDIR_FAILED = 1
_PREPARATION_EXIT = re.compile(r"code=exited ; status=(\d+)")
_DONE, _TRY_LATER, _NEEDS_PERSON = ExitCode.DONE, ExitCode.TRY_LATER, ExitCode.NEEDS_PERSON


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
    install, restart = f"syncd service install{option}", f"systemctl --user restart {unit.stem}"
    load, state = properties.get("LoadState"), properties.get("ActiveState", "")
    last = _last_end(properties)
    if load == "masked":
        return Report("masked: a person switched it off", "", f"systemctl --user unmask {unit.stem}", _NEEDS_PERSON)
    if load in ("bad-setting", "error"):
        see = f"systemd-analyze --user verify {unit.name} tells where; correct it, then: systemctl --user daemon-reload"
        return Report("systemd does not understand its unit", last, see, _NEEDS_PERSON)
    if load != "loaded" and state in ("active", "activating"):
        return Report("running, but its unit is missing", last, install, _NEEDS_PERSON)
    if load != "loaded":
        return Report("not installed", "", install, _NEEDS_PERSON)
    if state in ("active", "reloading"):
        return Report(*_running(unit, properties, option, key_changed_at, last), _DONE)
    preparation = _preparation_status(properties)
    remedy = _ENDS.get(_status(properties), _ANY_END)[1].format(option=option, restart=restart, key_file=key_file)
    if preparation == _MKDIR_FAILED:
        remedy = f"correct what the log says, then: {restart}"
    if state == "activating" and properties.get("SubState") == "auto-restart":
        if _status(properties) in _PERMANENT:
            return Report("fails at each start", last, remedy, _NEEDS_PERSON)
        return Report("restarts by itself, each time later", last, f"nothing; or at once: {restart}", _TRY_LATER)
    if state == "failed":
        return Report("failed, and stays so", last, remedy, _NEEDS_PERSON)
    if state in ("activating", "deactivating"):
        return Report("starting" if state == "activating" else "stopping", last, "", _TRY_LATER)
    return Report("stopped", last, restart, _TRY_LATER)


def _running(
    unit: Unit, properties: Mapping[str, str], option: str, key_changed_at: int, last: str
) -> tuple[str, str, str]:
    status_text = properties.get("StatusText", "")
    state = f"running as process {properties.get('MainPID', '?')}" + (f": {status_text}" if status_text else "")
    remedy = ""
    if key_changed_at > started_at(properties) > 0:
        remedy = f"the key file changed since it started: systemctl --user restart {unit.stem}"
    elif status_text.startswith("held"):
        remedy = f"see `syncd status{option}`"
    elif properties.get("UnitFileState") == "disabled":
        remedy = f"it will not start at the next login: systemctl --user enable {unit.stem}"
    elif properties.get("NeedDaemonReload") == "yes":
        remedy = "systemctl --user daemon-reload"
    return state, last, remedy


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
    code, status, preparation = (
        properties.get("ExecMainCode", "0"),
        _status(properties),
        _preparation_status(properties),
    )
    restarts = properties.get("NRestarts", "0")
    end = ""
    if preparation == _MKDIR_FAILED:
        end = "its state and cache folders cannot be made"
    elif preparation or (code == _EXITED and status != 0):
        end = f"exit {status}: {_ENDS.get(status, _ANY_END)[0]}"
    elif code not in ("0", _EXITED):
        end = f"killed by {_signal_name(status)}"
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
