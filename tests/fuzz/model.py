"""The model of one sandbox: what it must hold, may hold and must not hold.

It is kept from what syncd's archives put there and what an agent in the sandbox wrote and removed. It never asks syncd.

A version of the agent is *seen* once a sync or a look began after it was made: from then on it may be overwritten or
removed only if it is saved at home, and not at all where nothing but it differs from what was put there. By an archive
that is unpacked late, of an earlier sync, it may be overwritten until a look began.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from syncd.model.manifest import is_within
from tests.system.trees import Tree

Entry = tuple[object, ...]
FOLDER: Entry = ("folder",)


class Emptied(Enum):
    """How far it is known that the agent removed everything."""

    NO = "no, or everything was sent again since"
    UNSEEN = "yes"
    SEEN = "yes, and a sync began since"


class SandboxModel:
    """One sandbox's model. `synced`: put there by syncd; `agent`: changed by the agent since, None for removed."""

    def __init__(self) -> None:
        self.synced: Tree = {}
        self.agent: dict[str, Entry | None] = {}
        self.made: set[tuple[str, Entry]] = set()  # every version that the agent ever made
        self.tips: frozenset[str] = frozenset()  # the commits that the agent left references to
        self.acted_since_sync = False  # the agent
        self._unseen: set[str] = set()
        self._unlooked: set[str] = set()
        self._taken_back: set[tuple[str, Entry]] = set()
        self._at_home: set[str] = set()  # the agent's version there counts as sent
        self._arrived: dict[str, Sent] = {}
        self._sent: dict[str, Sent] = {}
        self._stays: set[str] = set()
        self._emptied = Emptied.NO
        self._refilled = False  # an archive was unpacked since it is known that the sandbox was emptied
        self._agent_folders: set[str] = set()
        self._forgotten: set[str] = set()
        self._obstructed: set[str] = set()

    # -- what happens

    def extracted(self, sent: Mapping[str, Sent], remote: Tree) -> None:
        """Note that an archive with these paths was unpacked, over files and in folders' places; `remote` is after."""
        for path, what in sent.items():
            if remote.get(path) != what.entry:
                continue  # it was extracted through a link of the agent's
            if (path, what.entry) in self._taken_back:
                self.agent[path] = what.entry
                continue  # by an archive from before the undo: it is what the agent had there
            if what.kind != "folder":
                self._drop_below(path)
            for parent in _parents(path):
                if self.synced.get(parent, FOLDER) != FOLDER:
                    del self.synced[parent]
                if self.agent.get(parent, FOLDER) != FOLDER:
                    del self.agent[parent]
            self.agent.pop(path, None)
            for paths in (self._forgotten, self._obstructed, self._unseen, self._unlooked):
                paths.discard(path)
            self._at_home.discard(path)
            self.synced[path] = remote[path]
            self._sent[path] = what
        if self._emptied is Emptied.SEEN:
            self._refilled = True

    def arrived(self, wanted: Collection[str], stays: Iterable[str], *, looked: bool) -> None:
        """Note that syncd knows that all it sent is there.

        Of other paths than the `wanted` ones it knows nothing. It found that these `stays` as they are there. A sandbox
        that was emptied is filled again if it `looked`.
        """
        if self._refilled and looked:
            self._emptied, self._refilled = Emptied.NO, False
            # What is not wanted any more is not put there again.
            self.agent = {p: entry for p, entry in self.agent.items() if entry is not None or p not in wanted}
        known = self._arrived | self._sent
        self._arrived = {path: known[path] for path in known if path in wanted}
        self._sent = {}
        self._stays = {path for path in stays if path in self.agent}
        self.acted_since_sync = False

    def cleared(self) -> None:
        """Note that the sandbox is empty."""
        made = self.made
        self.__init__()  # type: ignore[misc]
        self.made = made

    def agent_changed(self, before: Tree, after: Tree) -> None:
        """Note what the agent did, by the sandbox's content before and after it."""
        self.acted_since_sync = True
        self._emptied, self._refilled = Emptied.UNSEEN if before and not after else Emptied.NO, False
        for path in before.keys() | after.keys():
            entry = after.get(path)
            if entry == before.get(path):
                continue
            if entry is None:
                self.agent[path] = None
                self._agent_folders.discard(path)
                continue
            is_there = path in before or path in self.agent  # else syncd has removed it
            is_as_put = is_there and entry == self.synced.get(path) and path not in self._at_home
            if is_as_put and (path, entry) not in self.made:
                self.agent.pop(path, None)  # it is again as it was put there
                if path in self._stays and path not in self._arrived:
                    self.agent[path] = entry  # deleted here: the next sync looks at it once more
                elif path not in before and path not in self._arrived | self._sent:
                    self._forgotten.add(path)  # it was gone on both sides: nobody can say whose it is now
                continue
            if entry == FOLDER:
                self._agent_folders.add(path)
                if path in before or path in self.synced:
                    self.agent[path] = entry
            else:
                self.made.add((path, entry))
                self._unseen.add(path)
                self._unlooked.add(path)
                self.agent[path] = entry
            for parent in _parents(path):
                self._agent_folders.add(parent)
                if self.agent.get(parent, FOLDER) is None:
                    del self.agent[parent]

    def came_home(self, paths: Collection[str]) -> None:
        """Note that versions of the agent were brought home: what was sent before is nothing to compare with."""
        for path in paths:
            self._arrived.pop(path, None)
        self._at_home.update(paths)
        self._taken_back = {each for each in self._taken_back if each[0] not in paths}

    def is_at_home(self, path: str) -> bool:
        """True if the agent's version of the path was brought home, and not taken back: it counts as sent."""
        return path in self._at_home

    def taken_back(self, paths: Iterable[str], remote: Tree, versions: Iterable[tuple[str, Entry]]) -> None:
        """Note that an undo took these back: what is there is the agent's again, and its versions where they arrive."""
        self._taken_back.update(versions)
        for path in paths:
            self._at_home.discard(path)
            self.agent[path] = entry = remote.get(path)
            for known in (self._arrived, self._sent):
                known.pop(path, None)
            if entry is not None:
                self._taken_back.add((path, entry))

    def saw(self, paths: Collection[str] | None = None) -> None:
        """Note that a sync, or a look at these paths, begins: what the agent did there until now is seen."""
        self._unseen = set() if paths is None else self._unseen - set(paths)
        if paths is None and self._emptied is Emptied.UNSEEN:
            self._emptied = Emptied.SEEN

    def looked(self, paths: Collection[str] | None = None) -> None:
        """Note that a look at these paths begins, or one at all."""
        self._unlooked = set() if paths is None else self._unlooked - set(paths)
        self.saw(paths)

    def gone(self, remote: Tree, *, late: bool = False) -> dict[str, tuple[Entry, bool]]:
        """Return the agent's versions that are no longer there, each with True if it was seen before a `late` end."""
        unseen = self._unlooked if late else self._unseen
        return {
            path: (entry, path not in unseen)
            for path, entry in self.agent.items()
            if entry is not None and entry != FOLDER and remote.get(path) != entry
        }

    def removed(self, paths: Iterable[str]) -> None:
        """Note that syncd removed these."""
        for path in paths:
            self.agent.pop(path, None)
            self.synced.pop(path, None)
            self._unseen.discard(path)
            self._unlooked.discard(path)

    def is_only_agents(self, path: str, sent: Mapping[str, Sent]) -> bool:
        """True if that path, with all below it, is sent as it arrived before: the change there is the only one."""
        if path not in sent or path in self._forgotten:
            return False
        return all(self._arrived.get(each) == what for each, what in sent.items() if is_within(each, {path}))

    def stays(self, path: str) -> bool:
        """True if syncd had found out that the path stays as it is there."""
        return path in self._stays

    def forget(self, paths: Iterable[str] | None = None) -> None:
        """Note that syncd has no record of these paths, or of any, and need not remove them."""
        forgotten = self.synced.keys() if paths is None else self.synced.keys() & set(paths)
        self._forgotten |= forgotten
        self._arrived = {path: what for path, what in self._arrived.items() if path not in forgotten}
        self._sent = {path: what for path, what in self._sent.items() if path not in forgotten}
        self._stays -= set(forgotten)

    def note_obstructed(self, workspace: Path) -> None:
        """Note the paths that now have another kind in the workspace: syncd may remove them to put the new one there.

        That stays allowed if the new one cannot be put there after all.
        """
        for path, entry in self.synced.items():
            folders = [*_parents(path), *([path] if entry == FOLDER else [])]
            blocked = any(os.path.lexists(workspace / each) and not _is_folder(workspace / each) for each in folders)
            is_link = (workspace / path).is_symlink()
            is_other = os.path.lexists(workspace / path) and is_link != (entry[0] == "link")
            if blocked or (entry != FOLDER and (is_other or _is_folder(workspace / path))):
                self._obstructed.add(path)

    # -- what must hold

    def missing(self, wanted: Tree, remote: Tree) -> list[str]:
        """Return the wanted paths that differ in the sandbox, except where the agent changed them since."""
        return [
            f"{path!r} is {shown(entry)} locally and {shown(remote.get(path))} in the sandbox"
            for path, entry in sorted(wanted.items())
            if remote.get(path) != entry and not self._is_agents(path)
        ]

    def unwritten(self, wanted: Tree, remote: Tree) -> list[str]:
        """Return the paths that differ on both sides from what had arrived: the one here is to be written."""
        return [
            path
            for path, entry in sorted(wanted.items())
            if remote.get(path) != entry
            and self.agent.get(path) is not None
            and path in self._arrived
            and self._arrived[path].entry != entry
            and all(self.agent.get(parent, FOLDER) == FOLDER for parent in _parents(path))
        ]

    def is_someone_elses(self, path: str) -> bool:
        """True if the path, what is below it, or a folder above it may be the agent's."""
        start = f"{path}/"
        others = {*self.agent, *self._forgotten, *self._agent_folders}
        return self._is_agents(path) or any(each == path or each.startswith(start) for each in others)

    def left_over(self, wanted: Tree, remote: Tree) -> list[str]:
        """Return the unwanted paths that syncd put there."""
        extra = {path: entry for path, entry in remote.items() if path not in wanted and path not in self._forgotten}
        agents = {path for path, entry in extra.items() if self.agent.get(path) == entry}
        kept = agents | self._agent_folders | {parent for p in {*agents, *self._forgotten} for parent in _parents(p)}
        return sorted(extra.keys() - kept)

    def lost_agent_files(self, remote: Tree, decided: Collection[tuple[str, Entry]] = ()) -> list[str]:
        """Return what is the agent's and syncd removed or changed, but for folders that a person let go, or has."""
        return [
            f"{path!r} is the agent's {shown(entry)} and {shown(remote.get(path))} in the sandbox"
            for path, entry in sorted(self.agent.items())
            if entry is not None
            and remote.get(path) != entry
            and not (entry == FOLDER and ((path, entry) in decided or path in self._at_home))
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
        for paths in (self._agent_folders, self._forgotten, self._obstructed, self._unseen):
            paths.difference_update([each for each in paths if each.startswith(start)])


@dataclass(frozen=True)
class Sent:
    """One member of an archive. `kind` is as a `Tree` calls it, `content` a file's bytes or a link's target."""

    kind: str
    mode: int
    content: bytes

    @property
    def entry(self) -> Entry:
        """The entry of a `Tree` once it is extracted."""
        match self.kind:
            case "folder":
                return FOLDER
            case "link":
                return ("link", os.fsdecode(self.content))
            case _:
                return ("file", bool(self.mode & 0o100), self.content)


def sent_in(tar: bytes) -> dict[str, Sent]:
    """Return the members of an archive by their paths."""
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as members:
        return {
            name: _sent(members, member)
            for member in members
            if (name := member.name.removeprefix("./")) not in ("", ".")
        }


def _sent(members: tarfile.TarFile, member: tarfile.TarInfo) -> Sent:
    if member.isdir():
        return Sent("folder", member.mode, b"")
    if member.issym():
        return Sent("link", 0, os.fsencode(member.linkname))
    file = members.extractfile(member)
    return Sent("file", member.mode, b"" if file is None else file.read())


def not_deleted(paths: Iterable[str], remote: Tree) -> list[str]:
    """Return a sentence for each path."""
    return [f"{path!r} is deleted locally and {shown(remote[path])} in the sandbox" for path in paths]


def shown(entry: Entry | None) -> str:
    return "missing" if entry is None else f"{entry!r:.60}"


def changes(before: Tree, after: Tree) -> Iterator[tuple[str, Entry | None, Entry | None]]:
    """Yield the paths of files and links that differ, each with what it was and is; a folder counts as nothing."""
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old != new:
            yield path, None if old == FOLDER else old, None if new == FOLDER else new


def _is_folder(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
