"""Compares a new configuration's workspace and name with those of the others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from syncd.core.config_match import ConfiguredWorkspace, is_within, overlapping
from syncd.core.errors import ConfigError
from syncd.core.settings import Config
from syncd.core.text import shown_path

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


def refuse_same(workspace: str, others: Iterable[ConfiguredWorkspace]) -> None:
    """Raise `ConfigError` if another configuration has this workspace."""
    for other in others:
        if other.path == workspace:
            raise ConfigError(
                f"{shown_path(other.file)} syncs {shown_path(workspace)} already", "edit it, or name another directory"
            )


def refuse_same_sandbox(config: Config, environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` if another configuration names this one's sandbox, or another syncd syncs to it."""
    from syncd.daemon.shared_sandbox import others_naming, refuse_named  # noqa: PLC0415 - `init --help` needs none of it

    for other in others_naming(config, environ):
        raise ConfigError(
            f"{shown_path(other.file)} has the sandbox {config.sandbox.id} already", "edit it, or name another sandbox"
        )
    refuse_named(config, environ)


def overlaps(workspace: str, others: Iterable[ConfiguredWorkspace]) -> Iterator[str]:
    """Tell of each workspace that this one is inside of, or around."""
    for other in overlapping(workspace, others):
        if other.path == workspace:
            continue
        name, path = os.path.basename(other.file), shown_path(other.path)
        if is_within(workspace, other.path):
            pattern = shown_path(os.path.relpath(workspace, other.path))
            yield f'it is inside {path}, and {name} syncs it as well, unless workspace.ignore there has "/{pattern}/"'
        else:
            pattern = shown_path(os.path.relpath(other.path, workspace))
            yield f'{path} of {name} is inside it, and is synced twice, unless workspace.ignore here has "/{pattern}/"'


def name_for(workspace: str, taken: Sequence[str]) -> str:
    """A name for the configuration of this workspace that no other one has."""
    stem = _NOT_IN_NAMES.sub("-", os.path.basename(workspace)).strip("-.") or "workspace"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def checked_name(name: str, taken: Sequence[str]) -> str:
    """The name of a new configuration. Raises `ConfigError`."""
    name = name.strip().removesuffix(".toml")
    if not name.strip(".") or _NOT_IN_NAMES.search(name):
        raise ConfigError(
            f"{name!r} cannot be its name", "use letters, digits, '.', '_' and '-', as it is the service's name too"
        )
    if name in taken:
        raise ConfigError(f"there is a configuration {name} already", "choose another name")
    return name
