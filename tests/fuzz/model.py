"""What one sandbox must hold, may hold and must not: kept from what was put there, by whom, and taken away again.

syncd puts archives, an agent writes and removes on its own. Nothing here asks syncd what it believes.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.fuzz.operations import Tree

What = tuple[object, ...]
FOLDER: What = ("folder",)


class Ledger:
    """The account of one sandbox. `ours`: put there by syncd; `agents`: done by the agent since, None for removed."""

    def __init__(self) -> None:
        self.ours: Tree = {}
        self.agents: dict[str, What | None] = {}
        self._agents_folders: set[str] = set()
        self._usurped: set[str] = set()
        self._forgiven: set[str] = set()
        self._in_the_way: set[str] = set()

    # -- what happens

    def put(self, kinds: Mapping[str, str], there: Tree) -> None:
        """An archive with these paths was unpacked, after which that is there: over files, and in folders' places."""
        for path, kind in kinds.items():
            if kind != "folder":
                self._drop_below(path)
            for above in _above(path):
                if self.ours.get(above, FOLDER) != FOLDER:
                    del self.ours[above]
                if self.agents.get(above, FOLDER) != FOLDER:
                    del self.agents[above]
            self.agents.pop(path, None)
            self._usurped.discard(path)
            self._forgiven.discard(path)
            self._in_the_way.discard(path)
            self.ours[path] = there[path]

    def emptied(self) -> None:
        """Nothing is there any more."""
        self.__init__()  # type: ignore[misc]

    def written(self, path: str, content: bytes) -> None:
        """The agent wrote a file."""
        if path in self.ours:
            self._usurped.add(path)
        self.agents[path] = ("file", False, content)
        for above in _above(path):
            self._agents_folders.add(above)
            if self.agents.get(above, FOLDER) is None:
                del self.agents[above]

    def removed(self, path: str, there: Tree) -> None:
        """The agent removed what is there under this path."""
        for each in there:
            if each == path or each.startswith(f"{path}/"):
                self.agents[each] = None

    def forgive(self, paths: Iterable[str] | None = None) -> None:
        """What was put there, or these paths of it, syncd cannot know any more, and need not take away."""
        self._forgiven |= self.ours.keys() if paths is None else self.ours.keys() & set(paths)

    def before_initialize(self, home: Path) -> None:
        """What was put there in the place of what is at home now, as of another kind, may go for that, even in vain."""
        for path, what in self.ours.items():
            folders = [*_above(path), *([path] if what == FOLDER else [])]
            hindered = any(os.path.lexists(home / each) and not _is_folder(home / each) for each in folders)
            if hindered or (what != FOLDER and _is_folder(home / path)):
                self._in_the_way.add(path)

    # -- what must hold

    def lacking(self, wanted: Tree, there: Tree) -> list[str]:
        """What is at home and not there, but for what the agent did since it was put."""
        return [
            f"{path!r} is {shown(what)} here and {shown(there.get(path))} there"
            for path, what in sorted(wanted.items())
            if there.get(path) != what and not self._is_agents(path)
        ]

    def left(self, wanted: Tree, there: Tree, *, exactly: bool) -> list[str]:
        """What is there by syncd's doing, and not at home. `exactly`: also where the agent changed it."""
        extra = {path: what for path, what in there.items() if path not in wanted and path not in self._forgiven}
        agents = {
            path
            for path, what in extra.items()
            if self.agents.get(path) == what and not (exactly and path in self._usurped)
        }
        fine = agents | self._agents_folders | {above for path in {*agents, *self._forgiven} for above in _above(path)}
        return sorted(extra.keys() - fine)

    def robbed(self, there: Tree) -> list[str]:
        """What the agent wrote and nobody had a right to remove."""
        return [
            f"{path!r} is the agent's {shown(what)} and {shown(there.get(path))} there"
            for path, what in sorted(self.agents.items())
            if what is not None and there.get(path) != what
        ]

    def makes_way(self, path: str, what: What, there: Tree) -> bool:
        """Whether nobody but syncd has the place of what is to be put there, or nobody at all."""
        above = [each for each in _above(path) if there.get(each, FOLDER) != FOLDER]
        start, now = f"{path}/", there.get(path)
        if above:
            hinder = above
        elif now is None or (now == FOLDER) == (what == FOLDER):
            return True
        else:
            hinder = [path, *(each for each in there if each.startswith(start))]
        return all(
            self.ours.get(each) == there[each] and each not in self.agents and each not in self._forgiven
            for each in hinder
        )

    def taken(self, there: Tree) -> list[str]:
        """What syncd put there and nobody was to remove."""
        return [
            f"{path!r} was put there as {shown(what)} and is {shown(there.get(path))} there"
            for path, what in sorted(self.ours.items())
            if there.get(path) != what and not self._is_agents(path) and path not in self._in_the_way
        ]

    def _is_agents(self, path: str) -> bool:
        return path in self.agents or any(self.agents.get(above, FOLDER) != FOLDER for above in _above(path))

    def _drop_below(self, path: str) -> None:
        start = f"{path}/"
        for held in (self.ours, self.agents):
            for each in [each for each in held if each.startswith(start)]:
                del held[each]
        for kept in (self._agents_folders, self._usurped, self._forgiven, self._in_the_way):
            kept.difference_update([each for each in kept if each.startswith(start)])


def kinds_in(tar: bytes) -> dict[str, str]:
    """The paths in an archive, and what each is, in a tree's words."""
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as members:
        named = ((member.name.removeprefix("./"), member) for member in members)
        return {
            name: "folder" if member.isdir() else "link" if member.issym() else "file"
            for name, member in named
            if name not in ("", ".")
        }


def put_by(kinds: Mapping[str, str], there: Tree) -> dict[str, str]:
    """Those of an archive's paths that are there as what they are in it, as not all could be extracted."""
    return {path: kind for path, kind in kinds.items() if there.get(path, ("",))[0] == kind}


def gone_here(paths: Iterable[str], there: Tree) -> list[str]:
    """Each of them, told."""
    return [f"{path!r} is gone here and {shown(there[path])} there" for path in paths]


def shown(what: What | None) -> str:
    """In short."""
    return "not" if what is None else f"{what!r:.60}"


def _is_folder(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
