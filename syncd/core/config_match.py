"""Decides which configurations belong to a directory, by the workspaces that they name, and what names one sandbox."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from msgspec import Struct


class ConfiguredWorkspace(Struct, frozen=True):
    """A configuration `file` and the `path` of its workspace, absolute and free of links."""

    file: str
    path: str


def sandbox_key(base_url: str, sandbox_id: str) -> tuple[object, ...]:
    """Return what tells one sandbox from another, however its API's address is written."""
    try:
        url = urlsplit(base_url)
        port = url.port or {"https": 443, "http": 80}.get(url.scheme)
    except ValueError:
        return base_url, sandbox_id
    return url.scheme, url.hostname, port, url.path.rstrip("/"), sandbox_id


def is_within(path: str, folder: str) -> bool:
    """True if an absolute path is the folder, or is below it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def holding(directory: str, workspaces: Iterable[ConfiguredWorkspace]) -> list[ConfiguredWorkspace]:
    """Return the configurations of the deepest workspace that holds the directory: none, one, or several."""
    around = [each for each in workspaces if is_within(directory, each.path)]
    deepest = max((len(each.path) for each in around), default=0)
    return [each for each in around if len(each.path) == deepest]


def overlapping(path: str, workspaces: Iterable[ConfiguredWorkspace]) -> list[ConfiguredWorkspace]:
    """Return the configurations whose workspace is this one, is inside it, or is around it."""
    return [each for each in workspaces if is_within(path, each.path) or is_within(each.path, path)]
