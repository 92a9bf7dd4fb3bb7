"""Refuses a sandbox that another workspace of this person is synced to: each would overwrite the other's files.

The other one is known by its configuration, in the configuration folder, or by its process, wherever that one's
configuration is. An acquired sandbox has no name that another configuration could have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from syncd.core.config_file import config_files, load_config
from syncd.core.directories import directories_for, holder
from syncd.core.errors import ConfigError
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.report.status_store import read_document
from syncd.sync.status_document import SandboxStatus, Status


def refuse_named(config: Config, environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` if another workspace's configuration names this sandbox, or its daemon syncs to it."""
    for each in map(config.for_sandbox, config.sandboxes):
        if others := others_naming(each, environ):
            raise conflict(each, others)
    refuse_taken(config, environ)


def refuse_taken(config: Config, environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` if another workspace's daemon syncs to this sandbox, or if a configured one was synced to it.

    So of two the one that was there first goes on, and of two that both were, none starts.
    """
    for each in map(config.for_sandbox, config.sandboxes):
        others = others_naming(each, environ)
        synced = []
        for other in others:
            status = read_document(directories_for(other.workspace.path, environ).state)
            own = None if status is None else _of(status, each)
            if own is not None and own.last_sync is not None:
                synced.append(other)
        if synced:
            raise conflict(each, synced)
        _refuse_running(each, others, environ)


def others_naming(config: Config, environ: Mapping[str, str]) -> list[Config]:
    """Return the configurations of other workspaces that name this sandbox. One that cannot be read names none."""
    found: list[Config] = []
    wanted = config.sandbox.base_url, config.sandbox.id
    for file in config_files(environ) if config.sandbox.id is not None else ():
        with suppress(ConfigError):
            other = load_config(file)
            names_it = wanted in [(each.base_url, each.id) for each in other.sandboxes.values()]
            is_own = other.workspace.path == config.workspace.path or file == os.path.abspath(config.file)
            if names_it and not is_own:
                found.append(other)
    return found


def _refuse_running(config: Config, others: Sequence[Config], environ: Mapping[str, str]) -> None:
    own = directories_for(config.workspace.path, environ).state
    try:
        folders = sorted(os.listdir(os.path.dirname(own)))
    except OSError:
        return
    for name in folders:
        folder = os.path.join(os.path.dirname(own), name)
        status = None if folder == own else read_document(folder)
        if status is None or _of(status, config) is None or status.pid == os.getpid() or holder(folder) is None:
            continue  # `holder` must not be asked about a lock of this process
        configured = [other for other in others if shown_path(other.workspace.path) == status.workspace]
        if configured:
            raise conflict(config, configured)
        raise ConfigError(
            f"{shown_path(config.file)} names the sandbox {config.sandbox.id}, to which another syncd syncs "
            f"{status.workspace}",
            "stop that one, or give one of them another sandbox.id with `syncd config edit`",
        )


def conflict(config: Config, others: Sequence[Config]) -> ConfigError:
    """Return the error that names this configuration and those of other workspaces that name its sandbox."""
    files = " and ".join(shown_path(file) for file in sorted({config.file, *(other.file for other in others)}))
    return ConfigError(
        f"{files} name one sandbox, {config.sandbox.id}, for different workspaces",
        "give one of them another sandbox.id with `syncd config edit`, or remove one",
    )


def _of(status: Status, config: Config) -> SandboxStatus | None:
    """Return what the status of another workspace has of this sandbox, under whichever name."""
    wanted = config.sandbox.base_url, config.sandbox.id
    return next((each for each in status.sandboxes if (each.base_url, each.id) == wanted), None)
