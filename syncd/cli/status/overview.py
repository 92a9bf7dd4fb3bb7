"""`syncd status --all`: the status of each configured workspace, and its service."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from syncd.cli.options import load_for_command
from syncd.cli.status.subject import Subject
from syncd.core.config_lookup import config_files, config_name
from syncd.core.config_match import ConfiguredWorkspace
from syncd.core.errors import ConfigError
from syncd.core.settings import Config
from syncd.core.text import one_line, printable_json
from syncd.daemon.shared_sandbox import conflict, sandbox_of
from syncd.sync.status_document import Status

VERSION = 1


class ServiceState(StrEnum):
    """The state of a configuration's systemd user unit, and if it is what runs the daemon."""

    RUNNING = "running"
    STOPPED = "stopped"
    NONE = "none"


class WorkspaceRow(Struct, frozen=True):
    """One configuration: its status, or the `error` that makes it unusable; `shared` names those with its sandbox."""

    config: str
    name: str
    service: ServiceState
    status: Status | None = None
    error: str = ""
    shared: str = ""


class Overview:
    """Reads the status of all configurations, any number of times; they may come, go and change meanwhile."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._subjects: dict[str, Subject] = {}

    def read(self) -> tuple[WorkspaceRow, ...]:
        """The rows, `config.toml` first, then by name."""
        files = config_files(self._environ)
        self._subjects = {file: subject for file, subject in self._subjects.items() if file in files}
        rows = tuple(map(self._row, files))
        configs = {file: subject.config for file, subject in self._subjects.items()}
        return tuple(replace(row, shared=_shared(row.config, configs)) if row.status else row for row in rows)

    def _row(self, file: str) -> WorkspaceRow:
        name = config_name(file)
        subject = self._subjects.get(file)
        try:
            if subject is None:
                subject = self._subjects[file] = Subject(file, load_for_command(file))
            else:
                subject.refresh()
        except ConfigError as failure:
            return WorkspaceRow(file, name, ServiceState.NONE, error=one_line(str(failure), 1000))
        status = subject.inquiry.status()
        return WorkspaceRow(file, name, _service(subject.inquiry.installed_unit(), status.pid), status)


def encoded_rows(rows: tuple[WorkspaceRow, ...]) -> str:
    """The rows as `status --all --json` prints them: status documents with the configuration's file and name."""
    document = {"version": VERSION, "workspaces": [_document(row) for row in rows]}
    return printable_json(msgspec.json.encode(document).decode())


def _document(row: WorkspaceRow) -> dict[str, Any]:
    document = {"config": row.config, "name": row.name, "service": row.service}
    if row.status is None:
        return {**document, "error": row.error}
    warnings = (*row.status.warnings, row.shared) if row.shared else row.status.warnings
    return {**document, **msgspec.to_builtins(replace(row.status, warnings=warnings))}


def _shared(file: str, configs: Mapping[str, Config]) -> str:
    """The warning that other workspaces' configurations name this one's sandbox; empty if none does."""
    config = configs[file]
    key = sandbox_of(config)
    others = [
        ConfiguredWorkspace(name, other.workspace.path)
        for name, other in configs.items()
        if key is not None and sandbox_of(other) == key and other.workspace.path != config.workspace.path
    ]
    return one_line(str(conflict(config, others)), 600) if others else ""


def _service(unit: str | None, pid: int | None) -> ServiceState:
    """The state of the installed unit: systemd puts each service's processes into a control group of its name."""
    if unit is None:
        return ServiceState.NONE
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            groups = file.read().replace("\n", "/").split("/")
    except OSError:
        groups = []
    return ServiceState.RUNNING if f"{unit}.service" in groups else ServiceState.STOPPED
