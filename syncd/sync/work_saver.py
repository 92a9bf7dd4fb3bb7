"""Saves the agent's work before it is lost: a sandbox ends, is left for another one, or is replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from math import inf

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.errors import KeyRefused, SandboxNotFound, SyncdError, SyncWarning, TryLater
from syncd.core.text import counted, few, shown_path
from syncd.model.entry import SeenEntry, is_savable
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.target import MARGIN_S, Target
from syncd.sandbox.look_request import LookResult
from syncd.sandbox.sandbox_state import ending_targets
from syncd.sandbox.saved_versions import Why
from syncd.sync.agent_work import AgentWork, find_agent_work
from syncd.sync.following import save_followed
from syncd.sync.sandbox import Access, Sandbox
from syncd.sync.sync_plan import is_outdated
from syncd.sync.workspace import Workspace

Find = Callable[[Mapping[str, SeenEntry]], AgentWork]
"""Looks at all that is there, for which what is known need not be fetched again."""

# The key of the warning about what was lost, of which a person is told at once.
UNSAVED = "unsaved"
# So often it is looked at once more what was written while the last look's finds were fetched and saved.
_MOST_LOOKS = 5
# Its work is saved again after half of the time that a sandbox has left, as its agent goes on, and sooner after a
# failure; in its last seconds not any more.
AFTER_FAILURE_S, LAST_S = 5.0, 4.0
# A sandbox is left so long before its end at most: a record of an end that is much later is of another clock.
_LONGEST_S = 2 * MARGIN_S
# Nothing can mend it, so the warning does not stay for ever.
_WARNED_FOR_S = 86_400.0


class Unsaved(Struct, frozen=True):
    """The paths that a look found to differ and that could not be saved, each with the reason, and unlisted others."""

    paths: Mapping[str, str] = field(default_factory=dict)
    unlisted: int = 0
    look: LookResult = LookResult()

    def __bool__(self) -> bool:
        return bool(self.paths or self.unlisted)

    @property
    def count(self) -> str:
        """The number of them, for people."""
        return counted(len(self.paths) + self.unlisted, "path")

    def __str__(self) -> str:
        names = [f"'{shown_path(path)}' ({why})" for path, why in self.paths.items()]
        return ", ".join(few(names, len(names) + self.unlisted)).removeprefix("and ")


def save_work(sandbox: Sandbox, find: Find, why: Why, known: dict[str, SeenEntry]) -> Unsaved:
    """Save all that `find` finds to differ, but what is `known`, have it be known, and return what could not be saved.

    What the rules exclude is not saved, unless it was put there before. Raises what `find` raises.
    """
    try:
        work = find(known)
        there = {path: remote for path, remote in work.to_save.items() if known.get(path) != remote}
        failed = {path: remote for path, remote in there.items() if not is_savable(remote)}
        savable = {path: remote for path, remote in there.items() if path not in failed}
        for path in sandbox.saver.save(why, savable, work.arrived):
            failed[path] = there[path]
    finally:
        sandbox.looks.drop_copies()
    reasons = dict.fromkeys(work.unsearched, "its files cannot be listed there, or not in time")
    reasons |= {path: sandbox.why_unsaved(remote) for path, remote in sorted(failed.items())}
    known |= {path: there for path, there in {**work.excluded, **work.changed}.items() if path not in reasons}
    return Unsaved(reasons, work.unlisted, work.look)


def save_before_all_goes(sandbox: Sandbox, find: Find, why: Why, known: dict[str, SeenEntry]) -> Unsaved:
    """Save as `save_work` does, again and again, until that took so short a time that hardly anything has come since.

    What has no end is "." of the outcome. Raises what `find` raises.
    """
    for _ in range(_MOST_LOOKS):
        unsaved = save_work(sandbox, find, why, known)
        if not is_outdated(sandbox.looks.age_s(unsaved.look), 0):
            return unsaved
    return replace(unsaved, paths={".": "what is in it changes faster than it can be saved", **unsaved.paths})


class _Ending(Struct):
    """A sandbox that ends, and what is known of it and saved; times are monotonic seconds."""

    sandbox: Sandbox
    ends_s: float
    next_s: float
    known: dict[str, SeenEntry] = field(default_factory=dict)


class WorkSaver(Struct):
    """Saves all that differs in the sandboxes of one name, by the workspace's rules as they are at that moment."""

    access: Access
    workspace: Workspace
    _ending: list[_Ending] = field(default_factory=list)
    _done: Target | None = None
    _warning: SyncWarning | None = None
    _warned_s: float = 0.0  # by the wall clock

    def is_begun(self, target: Target) -> bool:
        """True if the work in this sandbox is saved from time to time until its end, or need not be any more."""
        known = [each.sandbox.target for each in self._ending] + ([self._done] if self._done else [])
        return any(each.same_sandbox(target) for each in known)

    @property
    def due_s(self) -> float:
        """The monotonic second at which something is to be saved again; infinity if nothing is."""
        return min((each.next_s for each in self._ending), default=inf)

    def recall(self, build_services: Callable[[Target], Sandbox]) -> None:
        """Go on with the sandboxes that an earlier process left and that have not ended yet."""
        now_s, wall_s = self.access.clock.monotonic_s(), self.access.clock.wall_s()
        for target, ends_wall_s in ending_targets(self.access.db, self.access.config.sandbox_name).load() or ():
            if 0 < ends_wall_s - wall_s < _LONGEST_S and not self.is_begun(target):
                self._ending.append(_Ending(build_services(target), now_s + ends_wall_s - wall_s, now_s))

    def begin(self, sandbox: Sandbox, ends_in_s: float) -> None:
        """Save the work in a sandbox that ends so soon from now on, with `save_due`."""
        if not sandbox.looks.are_made:
            self.note_done(sandbox.target)
        elif not self.is_begun(sandbox.target):
            now_s = self.access.clock.monotonic_s()
            self._ending = [each for each in self._ending if each.ends_s > now_s]
            self._ending.append(_Ending(sandbox, now_s + ends_in_s, now_s))
            wall_s = self.access.clock.wall_s()
            ending = [(each.sandbox.target, wall_s + each.ends_s - now_s) for each in self._ending]
            with suppress(OSError):  # then the next process does not go on with them
                ending_targets(self.access.db, self.access.config.sandbox_name).save(ending)

    def save_due(self) -> None:
        """Save what is due. What is not saved is a warning, and is tried again until the end. Raises `Stop`."""
        for ending in self._ending:
            if ending.next_s <= self.access.clock.monotonic_s():
                self._save_ending(ending)

    def _save_ending(self, ending: _Ending) -> None:
        sandbox, left_s = ending.sandbox, ending.ends_s - self.access.clock.monotonic_s()
        ending.next_s = ending.ends_s - left_s / 2 if left_s > 2 * LAST_S else inf
        try:
            find = partial(self._find, sandbox, left_s)
            unsaved = save_work(sandbox, find, Why.SANDBOX_ENDED, ending.known)
        except (StepFailed, SyncdError) as failure:
            # Also where the API says that there is no such sandbox: it may say so once, and its agent goes on.
            again_s = self.access.clock.monotonic_s() + AFTER_FAILURE_S
            ending.next_s = min(ending.next_s, again_s) if again_s <= ending.ends_s else inf
            if ending.next_s == inf:
                save_followed(sandbox.saver, sandbox.state, Why.SANDBOX_ENDED)
            self._warn_of(sandbox, failure, is_last=ending.next_s == inf)
        else:
            self._warning = None
            if unsaved:
                what = f"{unsaved.count} in the sandbox could not be saved before it ended: {unsaved}"
                self._warn(UNSAVED, what, "while the sandbox is there, `syncd pull DEST` brings all of it home")

    def _warn_of(self, sandbox: Sandbox, failure: StepFailed | SyncdError, *, is_last: bool) -> None:
        what = f"what was changed in the sandbox could not be saved before it ended ({failure.message})"
        remedy = "what was brought home before is here; the rest ended with the sandbox"
        if not is_last:
            what = f"what was changed in the sandbox, which ends soon, could not be saved yet ({failure.message})"
            remedy = "it is tried again until then; `syncd pull DEST` brings all of it home"
        # One that ended while the machine slept is no news, unless something is known to have been changed there.
        is_known = any(each.obstacle is None for each in sandbox.state.seen.stays.values())
        is_gone = isinstance(failure, StepFailed) and failure.refusal is SandboxNotFound
        self._warn(UNSAVED if is_last and (is_known or not is_gone) else "ended", what, remedy)

    def before_move(self, sandbox: Sandbox) -> None:
        """Save the work in a sandbox that is left for another one, while it answers.

        Raises `StepFailed` or `SyncdError` if the move has to wait, `Stop`.
        """
        sandbox_id = sandbox.target.sandbox_id
        give_up = f"a sync follows by itself; `syncd sandbox release --yes {sandbox_id}` gives that work up"
        if self.is_begun(sandbox.target) or sandbox.state.is_released or not sandbox.looks.are_made:
            return
        try:
            unsaved = self._save_all(sandbox, Why.SANDBOX_ENDED, {})
        except StepFailed as failure:
            if failure.action is not FailureAction.REFUSED or failure.refusal is KeyRefused:
                what = f"what was changed in the sandbox {sandbox_id} cannot be saved before it is left"
                message = f"{what} ({failure.message})"
                raise StepFailed(failure.step, failure.action, message, give_up, refusal=failure.refusal) from None
            if not sandbox.looks.ask_if_gone(failure):
                sandbox.looks.could_not_look(failure)
            save_followed(sandbox.saver, sandbox.state, Why.SANDBOX_ENDED)
            self._warn_of(sandbox, failure, is_last=True)
        else:
            if unsaved:
                raise TryLater(
                    f"the sandbox {sandbox_id} is not left, as {unsaved.count} there could not be saved: {unsaved}",
                    give_up,
                )
        self.note_done(sandbox.target)

    def before_replacing(self, sandbox: Sandbox, known: dict[str, SeenEntry]) -> LookResult:
        """Save the work that an archive will remove, note it as known, and return the look. Raises as `before_move`."""
        unsaved = self._save_all(sandbox, Why.OVERWRITTEN, known)
        if unsaved:
            raise TryLater(
                f"nothing is sent, as the sandbox would lose {unsaved.count} that could not be saved: {unsaved}",
                "mend that or move it away there; a sync follows by itself",
            )
        return unsaved.look

    def note_done(self, target: Target) -> None:
        """Note that nothing more is to be saved in this sandbox: that was done, or it was released."""
        self._done = target

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning about work that was not saved, for a day."""
        if self._warning is None or self.access.clock.wall_s() - self._warned_s > _WARNED_FOR_S:
            return []
        return [self._warning]

    def _save_all(self, sandbox: Sandbox, why: Why, known: dict[str, SeenEntry]) -> Unsaved:
        """Save all that differs in a sandbox of which nothing will be left, and return what was not saved.

        Raises `StepFailed`, `SyncdError`, `Stop`.
        """
        return save_before_all_goes(sandbox, partial(self._find, sandbox, inf), why, known)

    def _find(self, sandbox: Sandbox, left_s: float, known: Mapping[str, SeenEntry]) -> AgentWork:
        content = sandbox.state.content
        return find_agent_work(sandbox.looks, content, self.workspace.is_excluded(), left_s, known)

    def _warn(self, key: str, what: str, remedy: str) -> None:
        self._warning, self._warned_s = SyncWarning(key, what, remedy), self.access.clock.wall_s()
