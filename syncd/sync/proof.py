"""The proof that a sandbox keeps what an archive lacks: an archive of a single path, then a count of the others.

`PartialArchives` says if it is wanted, and what follows from the count.
"""

from __future__ import annotations

import logging

from msgspec import structs

from syncd.archive.chunk_store import DamagedPiece
from syncd.archive.snapshotter import Snapshotter
from syncd.core.waiter import Superseded
from syncd.model.entry import ABSENT, ALL_BITS, same
from syncd.model.manifest import Difference, Manifest, directories_above
from syncd.remote.failure import StepFailed
from syncd.sync.delivery import SyncObserver
from syncd.sync.sync_plan import Verdict, least_of, partial_paths
from syncd.sync.sync_round import SyncRound

_log = logging.getLogger("syncd.sync")
# So many of the paths that its archive lacks are counted afterwards.
_COUNTED = 2000


class ProofRound(SyncRound):
    """The round of the archive of a proof. The look of the archive before counts for it, as long as it is fresh."""

    def begin(self) -> None:
        """Begin nothing, as the look was made."""

    def prepare(self) -> Verdict:
        """Prepare once more if the look is outdated by now. Raises as in any other round."""
        return Verdict.INITIALIZE if self._mark_in_time() else SyncRound.prepare(self)

    def find_reason(self) -> Verdict:
        """Search for none, as the archive before has arrived."""
        return Verdict.INITIALIZE


def prove(last: SyncRound, snapshotter: Snapshotter, observer: SyncObserver) -> ProofRound | Verdict:
    """Find out if the sandbox keeps what an archive lacks; `last` is the round of a whole one, which has just arrived.

    Returns the round of the archive that proved it, which has arrived as well. Else INITIALIZE: none did; and any other
    verdict: the whole is to be sent again. Raises `Stop`, and once that archive may have arrived `StepFailed`,
    `TryLater`, `Superseded`.
    """
    sandbox, manifest = last.sandbox, last.attempt.manifest
    content, partial_archives = sandbox.state.content, sandbox.partial_archives
    stays = frozenset(content.base.paths_within({*last.attempt.held, *sandbox.state.seen.kept}))
    only = least_of(manifest, stays) if partial_archives.wants_proof else set()
    if not only or partial_paths(manifest, Difference(added=[*only])) is None:
        return _verdict_without(last)
    with last.work_saver.workspace.snapshot_turn():
        packed = snapshotter.pack(manifest.without(stays), only)
    if not all(same(packed.manifest.get(path, ABSENT), manifest[path], ALL_BITS) for path in only):
        return Verdict.INITIALIZE  # it changed meanwhile: the sync that follows finds that
    sent = Manifest({path: manifest[path] for path in only})
    attempt = structs.replace(last.attempt, content=content, written=sent, to_delete={}, is_whole=False, number=0)
    sync_round = ProofRound(sandbox, packed, attempt, last.work_saver, last.last_look)
    try:
        ended = sandbox.delivery.deliver(packed.archive, sent, sync_round, observer)
    except DamagedPiece:
        ended = Verdict.PACK_AGAIN
    except (StepFailed, Superseded):
        if sandbox.state.content.uncertain:
            raise
        ended = Verdict.PACK_AGAIN
    if isinstance(ended, Verdict):
        # Where nothing of it can be there it is made after another archive: the one before has arrived all the same.
        is_put_off = ended is Verdict.PACK_AGAIN and not sandbox.state.content.uncertain
        return Verdict.INITIALIZE if is_put_off else ended
    written = {*only, *directories_above(only)}
    if partial_archives.ask_if_kept([path for path in manifest.spread(_COUNTED) if path not in written]):
        return sync_round
    # The mark `uncertain` is still set: a process that dies at this point is followed by a whole archive too.
    _log.info("after a partial archive, a whole one follows")
    return Verdict.PACK_AGAIN


def _verdict_without(last: SyncRound) -> Verdict:
    """Return the verdict where no archive can prove it: by a count of what the whole one lacked, if it lacked some."""
    state, partial_archives = last.sandbox.state, last.sandbox.partial_archives
    lacked = [*state.seen.both_changed, *state.seen.kept, *last.only_there]
    is_kept = partial_archives.ask_if_kept(lacked) if partial_archives.may_replace and lacked else None
    if is_kept is False:
        state.mark_uncertain()
        return Verdict.PACK_AGAIN
    if is_kept:
        state.end_doubt()
    return Verdict.INITIALIZE
