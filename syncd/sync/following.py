"""Follows what the agent makes: looks for what changed since the last look, and keeps it at home.

A look costs a few requests, so it is made as often as was asked for while the agent works, more rarely the longer
nothing changes there, and not at all after an hour of silence. One that has the mark of the one before names no paths,
and reads only what has changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.choices import SAVED_BYTES
from syncd.model.entry import ABSENT, ALL_BITS, Entry, Kind, SeenEntry, same
from syncd.model.manifest import Manifest, removed_paths, replaced_entries
from syncd.remote.target import Target
from syncd.sandbox.followed_work import FollowedStore, FollowedWork
from syncd.sandbox.look_request import LookAction, LookItem, LookItems, LookRequest, LookResult, Mark, was_emptied
from syncd.sandbox.remote_changes import RemoteChanges
from syncd.sandbox.sandbox_state import SandboxContent, SandboxState
from syncd.sandbox.saved_versions import SavedVersions, SentEntry, Why
from syncd.selection.ignore_files import GIT
from syncd.store.state_db import StateDb
from syncd.sync.agent_work import IsExcluded, pruned_names
from syncd.sync.status_document import QUIET_S

# The longest wait for the next look, and the silence after which there is none.
LONGEST_WAIT_S, SILENCE_S = 60.0, 3600.0
# A wait is this part of the time in which nothing changed …
_QUIET_SHARE = 0.1
# … and a look takes no more than half of the time, one that downloads all that is there no more than a twentieth.
LOOKS_SHARE, DOWNLOADS_SHARE = 0.5, 0.05
# So long no look compares everything, whatever the change times there tell.
WHOLE_S = 600.0
# An account that refuses requests for their number has two a second for all; a tenth of them is left to following.
_PACED_REQUEST_S = 5.0


class Pace(Struct):
    """The time of the next look. All times are monotonic seconds."""

    follow_s: float
    began_s: float = -inf  # the last look
    took_s: float = 0.0
    requests: int = 0  # of that look
    share: float = LOOKS_SHARE  # of the time, that looks may take
    changed_s: float = -inf  # the last change that a look found
    woken_s: float = -inf  # the last change, sync or command
    untold_s: float = inf  # the last change, until it was told that nothing followed it

    def asked(self, now_s: float) -> None:
        """A command asked for something: look at once, and then as often as was configured."""
        self.began_s, self.changed_s, self.woken_s = -inf, now_s, now_s

    def looked(self, began_s: float, now_s: float, requests: int, *, has_changed: bool) -> None:
        """A look that began then has ended now."""
        self.began_s, self.took_s, self.requests = began_s, now_s - began_s, requests
        if has_changed:
            self.changed_s = self.woken_s = self.untold_s = now_s

    def is_newly_quiet(self, now_s: float) -> bool:
        """Return True if the agent has done nothing for a minute since changes after which that was not told yet."""
        return now_s - self.untold_s >= QUIET_S

    def due_s(self, now_s: float, *, is_paced: bool) -> float:
        """Return when the next look begins; infinity after a long silence. `is_paced`: the API refused requests."""
        if now_s - self.woken_s >= SILENCE_S:
            return inf
        # What was written right after a look began is found by the next one, and that one takes its time too.
        soonest_s = max(self.follow_s - self.took_s, self.took_s / self.share)
        quiet_s = min(_QUIET_SHARE * (now_s - self.changed_s), LONGEST_WAIT_S)
        paced_s = self.requests * _PACED_REQUEST_S if is_paced else 0.0
        return self.began_s + max(soonest_s, quiet_s, paced_s)


def follow_request(content: SandboxContent, known: FollowedWork, is_excluded: IsExcluded) -> LookRequest:
    """Return a look for what is otherwise than it was `known` to be; what the rules exclude is not fetched."""
    listed: dict[str, LookItem] = {}
    for path in {path for manifest in content.versions[1:] for path in manifest}:
        listed[path] = LookItem(tuple(content.versions_of(path)), LookAction.FETCH)
    for path, there in known.there.items():
        versions = () if there.kind is Kind.ABSENT else (there,)
        # An archive that was sent may have arrived meanwhile.
        sent = content.versions_of(path) if path in listed else ()
        action = LookAction.COMPARE if is_excluded(path, there.is_directory) else LookAction.FETCH
        listed[path] = LookItem((*versions, *sent), action)
    items = LookItems(listed, content.base or Manifest(), lambda _, entry: LookItem((entry,), LookAction.FETCH))
    kept_bytes = sum(entry.size_bytes for entry in known.there.values() if entry.copy)
    return LookRequest(
        items,
        find_new=True,
        pruned_names=pruned_names(is_excluded),
        most_copied_bytes=max(0, SAVED_BYTES - kept_bytes),
    )


class Followed(Struct, frozen=True):
    """The outcome of a look: the work that is there now, and whether it is another one than before."""

    work: FollowedWork
    has_changed: bool
    was_emptied: bool


class Arrivals(Struct, frozen=True):
    """The known content `before` a look and `after` it.

    `overwritten` say, each of one archive that arrived meanwhile, if it went over a path.
    """

    before: SandboxContent
    after: SandboxContent
    overwritten: Sequence[Callable[[str], bool]] = ()


class Since(Struct, frozen=True):
    """The look before, that came to its end and found all: its mark, the base then, and the folders not entered."""

    mark: Mark
    base: Manifest
    pruned_names: Collection[str]


def lacking(work: FollowedWork, is_excluded: IsExcluded) -> dict[str, SeenEntry]:
    """Return the files that are to be kept and whose content could not be fetched."""
    files = ((path, entry) for path, entry in work.there.items() if entry.kind is Kind.FILE and not entry.copy)
    return {path: entry for path, entry in files if not is_excluded(path, False)}


def to_fetch_soon(lacks: Mapping[str, SeenEntry], known: FollowedWork) -> list[str]:
    """Return the paths, of those that lack their contents, that the next look is to fetch.

    What lacked it before, as it is too large or has no room here, is tried again when everything is compared.
    """
    return [path for path, entry in lacks.items() if entry.unstable or known.there.get(path) != entry]


def since_look(request: LookRequest, result: LookResult, to_fetch: Collection[str], arrivals: Arrivals) -> Since | None:
    """Return what the next look needs to ask for changes alone; None if it has to compare everything.

    So it has where something may have been seen half written, was not looked at, or is to be fetched, and where a
    repository was sent, which no search enters.
    """
    base, is_whole = arrivals.before.base, not (result.unseen or result.not_kept)
    is_settled = not (arrivals.before.unanswered or arrivals.after.unanswered or arrivals.overwritten)
    if result.mark is None or base is None or GIT in base or not (is_whole and is_settled) or to_fetch:
        return None
    return Since(result.mark, base, request.pruned_names)


def request_since(
    whole: LookRequest, content: SandboxContent, known: FollowedWork, is_excluded: IsExcluded, since: Since
) -> LookRequest | None:
    """Return a look for what has changed since another one in place of a `whole` one; None if it cannot tell."""
    if content.unanswered or list(whole.pruned_names) != list(since.pruned_names):
        return None
    base = content.base or Manifest()
    arrived = {*replaced_entries(since.base, base), *removed_paths(since.base, base), *content.leftovers}
    listed = {path: LookItem(tuple(content.versions_of(path)), LookAction.FETCH) for path in arrived}
    for path, there in known.there.items():
        if path not in arrived and is_excluded(path, there.is_directory):
            listed[path] = LookItem((there,), LookAction.COMPARE)
    return replace(whole, items=listed, since=since.mark)


def told_since(result: LookResult, known: FollowedWork, content: SandboxContent) -> LookResult | None:
    """Return the result of such a look with what is gone; None: only a look at everything can tell."""
    unread = (entry.kind is Kind.FILE and not (entry.digest or entry.unstable) for entry in result.new.values())
    if result.is_other or result.mark is None or any(unread):
        return None
    base = content.base or Manifest()
    gone: dict[str, SeenEntry] = {}
    expected = {folder: set(base.entries_in("" if folder == "." else folder)) for folder in result.names}
    for path, entry in known.there.items():
        folder, _, name = path.rpartition("/")
        names_there = expected.get(folder or ".", set())
        if entry.kind is Kind.ABSENT:
            names_there.discard(name)
        else:
            names_there.add(name)
    for folder, names in result.names.items():
        prefix = "" if folder == "." else f"{folder}/"
        gone.update((prefix + name, ABSENT) for name in expected[folder].difference(names))
        came = {prefix + name for name in names if name not in expected[folder]}
        if not came <= result.new.keys() | result.differing.keys() | set(result.pruned):
            return None  # some without a new time
    return replace(result, differing={**result.differing, **gone})


def followed(
    known: FollowedWork, result: LookResult, arrivals: Arrivals, is_excluded: IsExcluded, at_s: float
) -> Followed:
    """Return what is there now by a look that began at `at_s`, when `known` was true.

    What was on its way into the sandbox, or arrived meanwhile, may have been seen half written: of such a path what was
    known stays known, if anything, unless it was overwritten.
    """
    before, after = arrivals.before, arrivals.after
    base_before, base = before.base or Manifest(), after.base or Manifest()
    unsettled = {path for content in (before, after) for manifest in content.unanswered for path in manifest}

    def is_gone(path: str) -> bool:
        return any(goes_over(path) for goes_over in arrivals.overwritten)

    there = {path: entry for path, entry in known.holding(after).there.items() if not is_gone(path)}
    missing = 0
    for path, entry in {**result.differing, **result.new}.items():
        old, now = base_before.get(path), base.get(path)
        missing += entry.kind is Kind.ABSENT and now is not None
        if path in unsettled or not _is_same(old, now) or is_gone(path):
            continue
        had = there.get(path)
        if entry.kind is Kind.UNREAD or entry.unstable:
            if had is None:
                there[path] = _without_content(entry)
        elif same(entry, now or ABSENT) or (entry.kind is Kind.ABSENT and now is None):
            there.pop(path, None)
        elif is_excluded(path, entry.is_directory):
            there[path] = _without_content(entry)
        else:
            there[path] = entry
    work = FollowedWork(
        at_s,
        {path: base[path] for path in there if path in base},
        there,
        tuple(result.pruned),
        result.unlisted,
        result.not_kept,
    )
    has_changed = not _alike(work.there, known.there)
    return Followed(work, has_changed, was_emptied(missing, len(base)))


def _is_same(one: Entry | None, other: Entry | None) -> bool:
    return one == other or (one is not None and other is not None and same(one, other, ALL_BITS))


def _without_content(entry: SeenEntry) -> SeenEntry:
    return replace(entry, copy="")


def _alike(one: Mapping[str, SeenEntry], other: Mapping[str, SeenEntry]) -> bool:
    """True if both name the same paths with the same versions."""
    if one.keys() != other.keys():
        return False
    return all(
        one[path] == other[path]
        or same(one[path], other[path])
        or (one[path].kind is other[path].kind and one[path].kind in (Kind.ABSENT, Kind.OTHER, Kind.UNREAD))
        for path in one
    )


def save_followed(remote_changes: RemoteChanges, state: SandboxState, why: Why, now_s: float) -> None:
    """Save what was followed in a sandbox of which nothing is left, or that nobody can ask any more."""
    store = FollowedStore(state.db, state.target)
    kept = store.load()
    if kept is not None and not remote_changes.save(why, kept.savable(state.content), kept.base.get):
        with suppress(OSError):
            store.remove(now_s)


def save_left(db: StateDb, target: Target, saved_versions: SavedVersions) -> None:
    """Save what was followed in a sandbox that is configured no more. Raises `OSError`."""
    kept = FollowedStore(db, target).load()
    there = {} if kept is None else kept.savable(SandboxState(db, target).content)
    new = {path: entry for path, entry in there.items() if saved_versions.holder_of(path, entry) is None}
    if kept is not None and new:
        bases: dict[str, SentEntry] = {path: (kept.base[path], None) for path in new if path in kept.base}
        saved_versions.save(Why.SANDBOX_ENDED, target.sandbox_id, new, bases)
