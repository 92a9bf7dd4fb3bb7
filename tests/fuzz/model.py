"""The model of one sandbox: what it must hold, may hold and must not hold.

It is kept from what syncd's archives put there and what an agent in the sandbox wrote and removed. It never asks syncd.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.fuzz.operations import Tree

Entry = tuple[object, ...]
FOLDER: Entry = ("folder",)


class SandboxModel:
    """One sandbox's model. `synced`: put there by syncd; `agent`: changed by the agent since, None for removed."""

    def __init__(self) -> None:
        self.synced: Tree = {}
        self.agent: dict[str, Entry | None] = {}
        self._agent_folders: set[str] = set()
        self._overwritten: set[str] = set()
        self._forgotten: set[str] = set()
        self._obstructed: set[str] = set()

    # -- what happens

    def extracted(self, kinds: Mapping[str, str], remote: Tree) -> None:
        """Note that an archive with these paths was unpacked, over files and in folders' places; `remote` is after."""
        for path, kind in kinds.items():
            if kind != "folder":
                self._drop_below(path)
            for parent in _parents(path):
                if self.synced.get(parent, FOLDER) != FOLDER:
                    del self.synced[parent]
                if self.agent.get(parent, FOLDER) != FOLDER:
                    del self.agent[parent]
            self.agent.pop(path, None)
            self._overwritten.discard(path)
            self._forgotten.discard(path)
            self._obstructed.discard(path)
            self.synced[path] = remote[path]

    def cleared(self) -> None:
        """Note that the sandbox is empty."""
        self.__init__()  # type: ignore[misc]

    def agent_wrote(self, path: str, content: bytes) -> None:
        if path in self.synced:
            self._overwritten.add(path)
        self.agent[path] = ("file", False, content)
        for parent in _parents(path):
            self._agent_folders.add(parent)
            if self.agent.get(parent, FOLDER) is None:
                del self.agent[parent]

    def agent_removed(self, path: str, remote: Tree) -> None:
        """Note that the agent removed the path and all below it; `remote` is from before."""
        for each in remote:
            if each == path or each.startswith(f"{path}/"):
                self.agent[each] = None

    def forget(self, paths: Iterable[str] | None = None) -> None:
        """Note that syncd has no record of these paths, or of any, and need not remove them."""
        self._forgotten |= self.synced.keys() if paths is None else self.synced.keys() & set(paths)

    def note_obstructed(self, workspace: Path) -> None:
        """Note the paths that now have another kind in the workspace: syncd may remove them to put the new one there.

        That stays allowed if the new one cannot be put there after all.
        """
        for path, entry in self.synced.items():
            folders = [*_parents(path), *([path] if entry == FOLDER else [])]
            blocked = any(os.path.lexists(workspace / each) and not _is_folder(workspace / each) for each in folders)
            if blocked or (entry != FOLDER and _is_folder(workspace / path)):
                self._obstructed.add(path)

    # -- what must hold

    def missing(self, wanted: Tree, remote: Tree) -> list[str]:
        """Return the wanted paths that differ in the sandbox, except where the agent changed them since."""
        return [
            f"{path!r} is {shown(entry)} locally and {shown(remote.get(path))} in the sandbox"
            for path, entry in sorted(wanted.items())
            if remote.get(path) != entry and not self._is_agents(path)
        ]

    def left_over(self, wanted: Tree, remote: Tree, *, exactly: bool) -> list[str]:
        """Return the unwanted paths that syncd put there. `exactly`: also those that the agent overwrote."""
        extra = {path: entry for path, entry in remote.items() if path not in wanted and path not in self._forgotten}
        agents = {
            path
            for path, entry in extra.items()
            if self.agent.get(path) == entry and not (exactly and path in self._overwritten)
        }
        kept = agents | self._agent_folders | {parent for p in {*agents, *self._forgotten} for parent in _parents(p)}
        return sorted(extra.keys() - kept)

    def lost_agent_files(self, remote: Tree) -> list[str]:
        """Return the agent's files that syncd removed or changed."""
        return [
            f"{path!r} is the agent's {shown(entry)} and {shown(remote.get(path))} in the sandbox"
            for path, entry in sorted(self.agent.items())
            if entry is not None and remote.get(path) != entry
        ]

    def is_free_for(self, path: str, entry: Entry, remote: Tree) -> bool:
        """True if only syncd's own entries, or none, are in the way of that entry."""
        files_above = [each for each in _parents(path) if remote.get(each, FOLDER) != FOLDER]
        start, now = f"{path}/", remote.get(path)
        if files_above:
            in_the_way = files_above
        elif now is None or (now == FOLDER) == (entry == FOLDER):
            return True
        else:
            in_the_way = [path, *(each for each in remote if each.startswith(start))]
        return all(
            self.synced.get(each) == remote[each] and each not in self.agent and each not in self._forgotten
            for each in in_the_way
        )

    def wrongly_removed(self, remote: Tree) -> list[str]:
        """Return the paths that syncd put there and that are gone without a reason."""
        return [
            f"{path!r} was put there as {shown(entry)} and is {shown(remote.get(path))} in the sandbox"
            for path, entry in sorted(self.synced.items())
            if remote.get(path) != entry and not self._is_agents(path) and path not in self._obstructed
        ]

    def _is_agents(self, path: str) -> bool:
        return path in self.agent or any(self.agent.get(parent, FOLDER) != FOLDER for parent in _parents(path))

    def _drop_below(self, path: str) -> None:
        start = f"{path}/"
        for entries in (self.synced, self.agent):
            for each in [each for each in entries if each.startswith(start)]:
                del entries[each]
        for paths in (self._agent_folders, self._overwritten, self._forgotten, self._obstructed):
            paths.difference_update([each for each in paths if each.startswith(start)])


def kinds_in(tar: bytes) -> dict[str, str]:
    """Return the paths in an archive with their kinds, as a `Tree` calls them."""
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as members:
        named = ((member.name.removeprefix("./"), member) for member in members)
        return {
            name: "folder" if member.isdir() else "link" if member.issym() else "file"
            for name, member in named
            if name not in ("", ".")
        }


def extracted_kinds(kinds: Mapping[str, str], remote: Tree) -> dict[str, str]:
    """Return those of an archive's paths that have its kind in the sandbox, after an incomplete extraction."""
    return {path: kind for path, kind in kinds.items() if remote.get(path, ("",))[0] == kind}


def not_deleted(paths: Iterable[str], remote: Tree) -> list[str]:
    """Return a sentence for each path."""
    return [f"{path!r} is deleted locally and {shown(remote[path])} in the sandbox" for path in paths]


def shown(entry: Entry | None) -> str:
    return "missing" if entry is None else f"{entry!r:.60}"


def _is_folder(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
