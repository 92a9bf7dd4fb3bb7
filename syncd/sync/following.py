"""Follows what the agent makes: looks for what changed since the last look, and keeps it at home.

A look costs a few requests, so it is made as often as was asked for while the agent works, more rarely the longer
nothing changes there, and not at all after an hour of silence. One that has the mark of the one before names no paths,
and reads only what has changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.choices import AGENT_QUIET_S, SAVED_BYTES
from syncd.model.entry import ABSENT, EXECUTABLE, Kind, SeenEntry
from syncd.model.manifest import Manifest, changed_paths
from syncd.remote.target import Target
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, Mark
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sandbox.saved_versions import SavedVersions, SentEntry, VersionSaver, Why
from syncd.selection.ignore_files import GIT
from syncd.store.blobs import Blobs
from syncd.store.state_db import Record, StateDb, holder_of
from syncd.sync.agent_work import FoundWork, IsExcluded, differing, whole_look

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

    follow_s: float  # 0: nobody looks
    began_s: float = -inf  # the last look
    took_s: float = 0.0
    requests: int = 0  # of that look
    share: float = LOOKS_SHARE  # of the time, that looks may take
    changed_s: float = -inf  # the last change that a look found
    active_s: float = -inf  # the last change, sync or command
    untold_s: float = inf  # the last change, until it was told that nothing followed it
    has_failed: bool = False  # the last look

    def asked(self, now_s: float) -> None:
        """A command asked for something: look at once, and then as often as was configured."""
        self.began_s, self.changed_s, self.active_s = -inf, now_s, now_s

    def looked(self, began_s: float, now_s: float, requests: int) -> None:
        """A look that began then has ended now."""
        self.began_s, self.took_s, self.requests = began_s, now_s - began_s, requests

    def found_change(self, now_s: float) -> None:
        """A look found that the agent is at work."""
        self.changed_s = self.active_s = self.untold_s = now_s

    def is_newly_quiet(self, now_s: float) -> bool:
        """Return True if the agent has done nothing for a minute since changes after which that was not told yet."""
        return now_s - self.untold_s >= AGENT_QUIET_S

    def due_s(self, now_s: float, *, is_paced: bool) -> float:
        """Return when the next look begins; infinity after a long silence. `is_paced`: the API refused requests."""
        if self.follow_s == 0 or now_s - self.active_s >= SILENCE_S:
            return inf
        # What was written right after a look began is found by the next one, and that one takes its time too.
        soonest_s = max(self.follow_s - self.took_s, self.took_s / self.share)
        quiet_s = min(_QUIET_SHARE * (now_s - self.changed_s), LONGEST_WAIT_S)
        paced_s = self.requests * _PACED_REQUEST_S if is_paced else 0.0
        wait_s = max(soonest_s, quiet_s, paced_s)
        return self.began_s + (min(wait_s, LONGEST_WAIT_S) if self.has_failed else wait_s)


def follow_request(content: SandboxContent, known: FoundWork, is_excluded: IsExcluded) -> LookRequest:
    """Return a look for what is otherwise than it was `known` to be; no more is fetched than can be kept."""
    kept_bytes = sum(entry.size_bytes for entry in known.there.values() if entry.copy)
    request = whole_look(content, known.there, is_excluded)
    return replace(request, most_copied_bytes=max(0, SAVED_BYTES - kept_bytes))


class Since(Struct, frozen=True):
    """The look before, that came to its end and found all: its mark, the base then, and the folders not entered.

    `known` is what was there after it, and `whole_s` the monotonic second of the last look that compared everything.
    """

    mark: Mark
    base: Manifest
    pruned_names: Collection[str]
    known: Mapping[str, SeenEntry]
    whole_s: float


def since_look(
    request: LookRequest, result: LookResult, base: Manifest, known: Mapping[str, SeenEntry], whole_s: float
) -> Since | None:
    """Return what the look after this one needs to ask for changes alone; None if it has to compare everything.

    So it has where something was not looked at, or is still being written, and where a repository was sent, which no
    search enters.
    """
    unstable = any(entry.unstable for entry in (*result.differing.values(), *result.new.values()))
    if result.mark is None or GIT in base or result.unseen or result.not_kept or unstable:
        return None
    return Since(result.mark, base, request.pruned_names, known, whole_s)


def request_since(
    whole: LookRequest, content: SandboxContent, known: Mapping[str, SeenEntry], since: Since
) -> LookRequest | None:
    """Return a look for what has changed since another one in place of a `whole` one; None if it cannot tell."""
    if content.unanswered or known != since.known or list(whole.pruned_names) != list(since.pruned_names):
        return None
    base, excluded = content.base, whole.with_action(LookAction.COMPARE)
    arrived = {*changed_paths(since.base, base), *content.leftovers}
    items = {path: whole.items.get(path) or LookItem((), LookAction.FETCH) for path in (*arrived, *excluded)}
    return replace(whole, items=items, since=since.mark)


def with_gone(result: LookResult, known: Mapping[str, SeenEntry], content: SandboxContent) -> LookResult | None:
    """Return the result of such a look with what is gone; None: only a look at everything can tell."""
    unread = (entry.kind is Kind.FILE and not (entry.digest or entry.unstable) for entry in result.new.values())
    if result.mark is None or any(unread):
        return None
    base = content.base
    gone: dict[str, SeenEntry] = {}
    expected = {folder: set(base.entries_in("" if folder == "." else folder)) for folder in result.names}
    for path, entry in known.items():
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
    known: FoundWork,
    result: LookResult,
    content: SandboxContent,
    overwritten: Collection[Callable[[str], bool]],
    is_excluded: IsExcluded,
    *,
    at_s: float,
) -> tuple[FoundWork, bool]:
    """Return what is there now, with that known content, and if someone there changed it since it was `known`.

    The look began at `at_s`, when that was true. `overwritten` say, each of one archive that arrived meanwhile, if it
    went over a path: nothing is known of these. What is still on its way into the sandbox may have been seen half
    written: of such a path what was known stays known, as of one that could not be read in peace.
    """

    def is_overwritten(path: str) -> bool:
        return any(goes_over(path) for goes_over in overwritten)

    on_its_way = {path for manifest in content.unanswered for path in manifest}
    left = {path: each for path, each in known.there.items() if not is_overwritten(path)}
    had, seen = differing(left, content, is_excluded), dict[str, SeenEntry]()
    for path, entry in {**result.differing, **result.new}.items():
        is_whole = not (entry.unstable or entry.kind is Kind.UNREAD)
        if path not in on_its_way and not is_overwritten(path) and (is_whole or path not in had):
            seen[path] = entry
    there = {path: each for path, each in had.items() if path not in seen} | differing(seen, content, is_excluded)
    work = FoundWork(at_s, there, tuple(result.pruned), result.unlisted, result.not_kept)
    return work, facts_of(there) != facts_of(had)


def facts_of(there: Mapping[str, SeenEntry]) -> list[tuple[object, ...]]:
    """Return what tells these versions from others of the same paths, in order."""
    files = {path: (each.size_bytes, each.mode & EXECUTABLE) for path, each in there.items() if each.kind is Kind.FILE}
    return [(path, each.kind.value, each.target, each.digest, files.get(path)) for path, each in sorted(there.items())]


class FollowedStore:
    """Keeps at home what the agent made, as of the last look that followed it: one row a sandbox, and the contents.

    It is the last state, not a pile of versions: what the agent wrote over or deleted since goes. Before what was kept
    is all that is left of a sandbox, it becomes a saved version.
    """

    def __init__(self, db: StateDb, target: Target) -> None:
        self._db = db
        self._blobs = Blobs(db)
        self._holder = holder_of(target.owner)
        self._record = Record(db, "followed", FoundWork, "what the agent made is looked at once more", target.owner)

    def load(self, is_wanted: Callable[[str], bool] = lambda _: True) -> FoundWork | None:
        """Return what was kept last of these paths, without contents that are gone; None if nothing is."""
        work = self._record.load()
        if work is None:
            return None
        return replace(work, there={path: self._kept(it) for path, it in work.there.items() if is_wanted(path)})

    def _kept(self, entry: SeenEntry) -> SeenEntry:
        """Return the entry with the file in which its content is kept: the state folder may have moved."""
        is_here = entry.copy != "" and self._blobs.has(entry.digest)
        return replace(entry, copy=self._blobs.path(entry.digest) if is_here else "")

    def drop_damaged(self) -> None:
        """Remove the contents that are not as they were found, as the disk damaged them: the next look fetches them."""
        work = self._record.load()
        for digest in {entry.digest for entry in work.there.values() if entry.copy} if work is not None else ():
            self._blobs.drop_unless_whole(digest)

    def save(self, work: FoundWork, now_s: float) -> FoundWork:
        """Keep this in the place of what was kept before; it survives a power cut when this returns.

        Contents are read from the entries' `copy`; the result has them where they are kept. Raises `OSError`; then what
        was kept before still is.
        """
        written: set[bytes] = set()
        try:
            for entry in work.there.values():
                if entry.copy and entry.copy != self._blobs.path(entry.digest):
                    written.add(self._blobs.add(entry.copy, entry.digest)[0])
            self._blobs.flush(written)
            self._put(work)
        except BaseException:
            self._blobs.clean_up(now_s, written)
            raise
        self._blobs.clean_up(now_s)
        return replace(work, there={path: self._kept(entry) for path, entry in work.there.items()})

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        """Keep nothing of these paths any more: syncd itself overwrote or removed what was there. Raises `OSError`.

        Their contents stay until the next clean-up, as the transaction that is open may fail.
        """
        work = self._record.load()
        if work is not None and any(map(is_gone, work.there)):
            self._put(replace(work, there={path: it for path, it in work.there.items() if not is_gone(path)}))

    def remove(self) -> None:
        """Keep nothing any more; the contents stay until the next clean-up. Raises `OSError`."""
        with self._db.transaction():
            self._blobs.let_go(self._holder)
            self._record.remove()

    def _put(self, work: FoundWork) -> None:
        with self._db.transaction():
            self._blobs.let_go(self._holder)
            self._blobs.hold(self._holder, {entry.digest for entry in work.there.values() if entry.copy})
            self._record.save(work)


def save_followed(saver: VersionSaver, state: SandboxState, why: Why) -> None:
    """Save what was followed in a sandbox of which nothing is left, or that nobody can ask any more."""
    store = FollowedStore(state.db, state.target)
    kept = store.load()
    if kept is not None and not saver.save(why, kept.savable(state.content), state.content.base_of):
        with suppress(OSError):
            store.remove()


def save_followed_in_removed(db: StateDb, target: Target, saved_versions: SavedVersions) -> None:
    """Save what was followed in a sandbox that is configured no more. Raises `OSError`."""
    kept, content = FollowedStore(db, target).load(), SandboxState(db, target).content
    there = {} if kept is None else kept.savable(content)
    held = saved_versions.holders(there)
    new = {path: entry for path, entry in there.items() if path not in held}
    if new:
        sent = {path: content.base_of(path) for path in new}
        bases: dict[str, SentEntry] = {path: (entry, None) for path, entry in sent.items() if entry is not None}
        saved_versions.save(Why.SANDBOX_ENDED, target.sandbox_id, new, bases)
