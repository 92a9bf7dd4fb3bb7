"""A look at the sandbox's workspace: what is asked of the program that looks, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from math import inf
from types import MappingProxyType
from typing import Annotated

from msgspec import Meta, Struct, field

from syncd.core.choices import SAVED_BYTES
from syncd.core.clock import Moment
from syncd.model.entry import Entry, SeenEntry
from syncd.model.manifest import Manifest
from syncd.remote.failure import StepFailed

# The end of a look for what is new: a digest over the inode numbers of all folders, and the newest change time that it
# saw, in nanoseconds.
Mark = tuple[Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")], Annotated[int, Meta(ge=0, le=1 << 62)]]

# A look is no older than this when the initialize is requested.
FRESH_S = 2.0


class LookAction(Enum):
    """The action of the program at one path, by its letter in the list."""

    COMPARE = "c"  # report it if it differs
    FETCH = "f"  # report it if it differs, and copy it
    REMOVE = "r"  # remove it if it does not differ, else report it
    EXISTS = "e"  # count it if it is missing
    PLACE = "p"  # report what keeps its version from being extracted there
    COMMITS = "g"  # as PLACE, and report it if it is a git repository with commits that syncd did not make


class Obstacle(Enum):
    """Something that keeps a path from being extracted, by its letter in the report (never one of the last two)."""

    DIRECTORY = "d"
    FILE = "f"
    SYMLINK = "l"
    OTHER = "o"
    READ_ONLY = "r"  # the directory that it would be in
    COMMITS = "g"
    LINK_ON_ITS_WAY = "t"  # its target's
    UNKNOWN = "?"


class LookItem(Struct, frozen=True):
    """One path to look at. It does not differ if it is as any of `versions`.

    A file is as a version if kind, content and the owner's executable bit are equal; a link if its target is; a
    directory always; with ABSENT, nothing need be there. A path without versions differs if anything is there. Of a
    version whose place is checked only the kind counts.
    """

    versions: tuple[Entry, ...]
    action: LookAction


class LookItems(Mapping[str, LookItem]):
    """The `listed` items, one for each other path of a manifest, made when it is asked for, and the `last` ones.

    A first archive holds every path, and items for all of them would take more memory than all else. A look takes items
    in their order, for as long as it may.
    """

    def __init__(
        self,
        listed: Mapping[str, LookItem],
        manifest: Manifest,
        item_of: Callable[[str, Entry], LookItem],
        last: Mapping[str, LookItem] = MappingProxyType({}),
    ) -> None:
        """No path of `last` is listed, or in the manifest."""
        self.listed = listed
        self._last = last
        self._manifest = manifest
        self._item_of = item_of
        self._count = len(manifest) + sum(path not in manifest for path in listed) + len(last)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        yield from self.listed
        yield from (path for path in self._manifest if path not in self.listed)
        yield from self._last

    def __getitem__(self, path: str) -> LookItem:
        item = self.listed.get(path) or self._last.get(path)
        return self._item_of(path, self._manifest[path]) if item is None else item

    def __contains__(self, path: object) -> bool:
        return path in self.listed or path in self._last or path in self._manifest

    def each(self) -> Iterator[tuple[str, LookItem]]:
        yield from self.listed.items()
        for path, entry in self._manifest.items():
            if path not in self.listed:
                yield path, self._item_of(path, entry)
        yield from self._last.items()


class LookRequest(Struct, frozen=True):
    """The paths to look at.

    `items` are in the order in which they are removed. `find_new`: list and copy what is there beyond `items`, but not
    what is in a directory of a name in `pruned_names`, and never a `.git`. At most `most_copied_bytes` are copied, by a
    program the smallest files first; what is beyond is reported without a copy. `since`: of what is there, only what
    has changed since that mark is new, and of the items only those are read that are fetched.
    """

    items: Mapping[str, LookItem] | LookItems
    find_new: bool = False
    pruned_names: Collection[str] = ()
    most_copied_bytes: int = SAVED_BYTES
    since: Mark | None = None

    @property
    def asks_something(self) -> bool:
        return bool(self.items) or self.find_new

    def each(self) -> Iterator[tuple[str, LookItem]]:
        return self.items.each() if isinstance(self.items, LookItems) else iter(self.items.items())

    def with_action(self, action: LookAction) -> list[str]:
        """Return the listed paths with this action, in order."""
        listed = self.items.listed if isinstance(self.items, LookItems) else self.items
        return [path for path, item in listed.items() if item.action is action]


class LookResult(Struct, frozen=True):
    """The outcome of a look that was `asked` for at a moment; it takes so many seconds by itself.

    `differing` are paths of the request (a missing one with versions is ABSENT), `new` those beyond it. `pruned`
    are directories that were not entered, by their name or because they cannot be listed ("." is the workspace
    itself). Of paths to remove, `removed` are gone, `holding_more` are directories that hold something else, and
    `failed` those that could not be removed, with the reason; those that differ are in `differing`. `missing` counts
    the missing ones of action EXISTS. `blocked` are paths to extract, or directories above them, that cannot be, each
    with its obstacle; with `kinds_only`, nobody could see which directories cannot be written. `unlisted` counts
    new paths beyond the most that a look lists, `unseen` what was not looked at in time: paths of the request,
    which are UNREAD, and directories, which are among the `pruned` ones, as are those with a path that is too
    long for this machine. `not_kept` is the reason why copies of some are lacking that this machine could not fetch
    or keep, `unfetched` why there are none at all. `mark` is that of a look for what is new, if it came to its end, and
    `names` are those in each folder that has changed since an earlier one. Where one since another has no mark, too
    much has changed, and only a look at everything can tell.
    """

    differing: Mapping[str, SeenEntry] = field(default_factory=dict)
    new: Mapping[str, SeenEntry] = field(default_factory=dict)
    pruned: Collection[str] = ()
    removed: Collection[str] = ()
    holding_more: Collection[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    missing: int = 0
    blocked: Mapping[str, Obstacle] = field(default_factory=dict)
    kinds_only: bool = False
    unlisted: int = 0
    not_kept: str = ""
    unseen: int = 0
    unfetched: StepFailed | None = None
    mark: Mark | None = None
    names: Mapping[str, Collection[str]] = field(default_factory=dict)
    asked: Moment | None = None
    takes_s: float = 0.0

    def age_s(self, now: Moment) -> float:
        """Return the seconds since it was asked for, less what it takes by itself; less than none if unknown."""
        return -inf if self.asked is None else self.asked.age_s(now) - self.takes_s


def was_emptied(missing: int, looked_at: int) -> bool:
    """True if the sandbox lost nearly everything that syncd had put there: it was reset, or is another one."""
    return missing > 0 and missing * 10 > looked_at * 9
