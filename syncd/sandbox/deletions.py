"""Makes way in the sandbox for a snapshot, as `sandbox.deletions` says, and remembers what stays there all the same."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

from syncd.core.errors import KeyRefused
from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.remote.api import Api
from syncd.remote.failure import FailureAction, StepFailed
from syncd.sandbox.blocked_paths_rules import hindered, in_the_way, kinds_changed
from syncd.sandbox.leftovers import NOTHING, Leftovers, RemovalOutcomes, after, both
from syncd.sandbox.leftovers_store import LeftoversStore
from syncd.sandbox.removal_plan import Deletions, Versions, paths_to_delete, within
from syncd.sandbox.remover import Remover
from syncd.scan.manifest import Kind, Manifest

_log = logging.getLogger("syncd.clearing")


class DeletionSync:
    """What goes on before the initializes of one sandbox, and what lingers there after them."""

    def __init__(
        self,
        deletions: Deletions,
        api: Api,
        remover: Remover,
        file: LeftoversStore,
        check: Callable[[], None] = lambda: None,
        *,
        is_excluded: Callable[[str, bool], bool] = lambda _path, _is_dir: False,
        hindered: Collection[str] = (),
    ) -> None:
        """`is_excluded` says of a path, and whether it is a directory, that it is no deletion: it is left out here."""
        self._deletions = deletions
        self._api = api
        self._remover = remover
        self._file = file
        self._check = check
        self._is_excluded = is_excluded
        self._failed: dict[str, SyncWarning] = {}
        self._outcomes = RemovalOutcomes()
        self._hindered = set(hindered)
        self._was_reset = False
        self._leftovers = file.load()

    @property
    def warnings(self) -> list[SyncWarning]:
        """What stays in the sandbox although it is gone here, and why."""
        if not self.removes:
            return []  # then it stays because a person wants it so
        kept = [
            SyncWarning(
                f"kept:{path}",
                f"{shown_path(path)!r} was deleted here and changed in the sandbox, where it stays",
                "run `syncd pull` to have it, or remove it there and run `syncd push --force`",
            )
            for path in sorted(self._leftovers.changed - self._hindered)  # of these others tell
        ]
        return [*kept, *self._failed.values()]

    def keeps_leftovers(self, path: str) -> bool:
        """Whether a version of ours may be there that no snapshot holds any more."""
        return path in self._leftovers.entries

    @property
    def secret(self) -> frozenset[str]:
        """What may be there, though a secret was found in it here."""
        return self._leftovers.secret

    @property
    def removes(self) -> bool:
        """Whether anything is removed only because it was deleted here."""
        return self._deletions is not Deletions.KEEP

    @property
    def lingering_files(self) -> int:
        """How many files that were deleted here are still in the sandbox."""
        return self._leftovers.files

    def owes(self, wanted: Manifest, unread: Collection[str]) -> bool:
        """Whether something is to be removed that was left there before, and that was not tried in vain just now."""
        left = self._leftovers
        if not self.removes or not left.entries:
            return False
        tried = left.changed | set(self._outcomes.failed)
        untried = {path: left.entries[path] for path in left.entries if path not in tried}
        return bool(self._due(paths_to_delete((), wanted, unread, untried), wanted))

    def try_all_again(self) -> None:
        """What was someone else's when it was last looked at may be as it was uploaded by now, or gone."""
        self._leftovers = replace(self._leftovers, changed=frozenset())
        self._outcomes, self._hindered = RemovalOutcomes(), set()

    def paths_to_delete(self, held: Iterable[Manifest], wanted: Manifest, unread: Collection[str]) -> Versions:
        """What is to go before `wanted` is initialized over what may be there, and what an earlier time left undone."""
        held = list(held)
        if not self.removes and not kinds_changed(held, wanted, self._leftovers.entries):
            return {}
        found = self._due(paths_to_delete(held, wanted, unread, self._leftovers.entries), wanted)
        if not self.removes:
            found = in_the_way(found, wanted)
        # What someone changed goes along with others, should it be ours again, but is no reason to look, unless it
        # hinders.
        return {} if found.keys() <= self._leftovers.changed and not hindered(found, wanted) else found

    def _due(self, found: Versions, wanted: Manifest) -> Versions:
        """All of it, but where nothing was deleted: a reset takes the agent's work along, and not for a new rule."""
        if self._deletions is Deletions.RESET and all(
            path not in wanted and self._is_excluded(path, versions[-1].kind is Kind.DIRECTORY)
            for path, versions in found.items()
        ):
            return {}
        return found

    def empties(self, paths_to_delete: Versions) -> bool:
        """Whether clearing takes everything away, so that only a whole archive can follow."""
        return bool(paths_to_delete) and self._deletions is Deletions.RESET

    def clear(self, paths_to_delete: Versions, wanted: Manifest) -> set[str]:
        """Remove these paths there: the paths of `wanted` whose place may still be taken. Raises `StepFailed`,
        `TryLater`, `Stop`.

        What cannot be removed becomes a problem, and no reason to hold back everything else.
        """
        if not self.empties(paths_to_delete):
            self._remover.settle(self._check)  # whatever is to happen now: it may have been started when that was other
        self._outcomes, self._failed, self._hindered = RemovalOutcomes(), {}, set()
        if not paths_to_delete:
            return set()
        if self._deletions is Deletions.RESET:
            self._api.reset()
            self._remover.neutralise()
            self._was_reset = True
            _log.info("the sandbox was reset, as %d paths were deleted", len(paths_to_delete))
            return set()
        try:
            removal = self._remover.remove(paths_to_delete, self._check)
        except StepFailed as failure:
            if failure.action is not FailureAction.REFUSED or failure.refusal is KeyRefused:
                raise
            self._outcomes = RemovalOutcomes(failed=paths_to_delete.keys())
            what = f"{len(paths_to_delete)} deleted paths stay in the sandbox ({failure.message})"
            self._failed = {"": SyncWarning("delete", what, 'remove them there, or set sandbox.deletions = "keep"')}
            self._hindered = hindered(paths_to_delete, wanted)
            return self._hindered
        unmoved = {path: paths_to_delete[path] for path in (*removal.kept, *removal.changed, *removal.failed)}
        self._hindered = hindered(unmoved, wanted)
        removed = frozenset(removal.removed).union(p for p in removal.kept if not within(p, self._hindered))
        self._outcomes = RemovalOutcomes(removed, frozenset(removal.changed), removal.failed.keys())
        self._failed = {
            path: SyncWarning(
                f"delete:{path}",
                f"{shown_path(path)!r} was deleted here and could not be removed in the sandbox ({why})",
                "it is tried again with the next sync",
            )
            for path, why in removal.failed.items()
            if path not in self._hindered
        }
        counts = len(removed), len(removal.changed), len(removal.failed)
        _log.info("%d paths removed in the sandbox, %d changed there and kept, %d failed", *counts)
        return self._hindered

    @contextlib.contextmanager
    def accounting(
        self,
        held: Iterable[Manifest],
        wanted: Manifest,
        unread: Collection[str],
        secret_files: Collection[str] = (),
    ) -> Iterator[None]:
        """Around the record that the sandbox holds `wanted`: what lingers besides is noted with it.

        A process that dies in between leaves both what lingered before and what does after: some of it may be at home
        again or removed, which the next sync finds out. Where the state folder takes no note, only this process knows.
        """
        before = NOTHING if self._was_reset else self._leftovers
        now = NOTHING
        if not self._was_reset:
            now = after(before, held, wanted, self._outcomes, unread=unread, secret_files=secret_files)
        self._keep(both(self._leftovers, now))
        try:
            yield
        finally:
            self._leftovers, self._was_reset = now, False
            self._outcomes = RemovalOutcomes(failed=self._outcomes.failed)
        self._keep(now)

    def forget(self) -> None:
        """The sandbox is gone, and what was in it."""
        self._keep(NOTHING)
        self._leftovers = NOTHING

    def _keep(self, leftovers: Leftovers) -> None:
        with contextlib.suppress(OSError):
            self._file.save(leftovers)
