"""The syncs of one workspace: to the sandbox that its provider names, and from one sandbox to the next."""

from __future__ import annotations

import os
from math import inf

from msgspec.structs import replace

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import SandboxNotFound, SyncWarning
from syncd.core.settings import MAIN
from syncd.core.text import MOST_NAMED, one_line
from syncd.model.entry import Kind
from syncd.model.manifest import is_within
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.target import Target, ends_at, margin_s
from syncd.sandbox.sandbox_content import UNKNOWN, SandboxContent
from syncd.sandbox.sandbox_state import last_target
from syncd.sandbox.saved_versions import Why
from syncd.sandbox.setup_rules import SetupStatus
from syncd.sync.delivery import SyncObserver
from syncd.sync.following import save_followed
from syncd.sync.outcome import Outcome
from syncd.sync.sandbox import Access, Sandbox
from syncd.sync.status_document import AgentStatus, SandboxStatus
from syncd.sync.sync_once import SandboxSync
from syncd.sync.work_saver import WorkSaver
from syncd.sync.workspace import Workspace


class SyncCycle:
    """The syncs of one workspace to the sandbox of one name, and from one sandbox to the next."""

    def __init__(self, access: Access, workspace: Workspace) -> None:
        self.name = access.config.sandbox_name
        self.access = access
        self.provider = access.provider()
        self.snapshotter = workspace.snapshotter(self.name)
        self.work_saver = WorkSaver(access, workspace)
        self.sync: SandboxSync | None = None
        self._workspace = workspace
        self._left: list[SyncWarning] = []  # the last sandboxes that were gone, since the start

    # -- what is known of the sandbox

    @property
    def sandbox(self) -> Sandbox | None:
        """The sandbox, once there is one."""
        return self.sync.sandbox if self.sync else None

    @property
    def content(self) -> SandboxContent:
        """What may be in the sandbox."""
        return self.sandbox.state.content if self.sandbox else UNKNOWN

    @property
    def is_settled(self) -> bool:
        """True if it is certain what the sandbox holds, and all of it is whole."""
        state = self.sandbox.state if self.sandbox else None
        return state is not None and state.content.is_certain and not state.torn

    @property
    def target(self) -> Target | None:
        """The sandbox, once there is one."""
        return self.sandbox.target if self.sandbox else self.provider.known

    def shown(self, status: SandboxStatus) -> SandboxStatus:
        """Return the status with what is known now of the sandbox, and of excluded paths."""
        status = status if self.target is None else status.at(self.target)
        expires_at, left_out = ends_at(self.provider.acquired_sandbox), self.snapshotter.excluded
        status = replace(status, sandbox_expires_at=expires_at, left_out=left_out)
        sandbox = self.sandbox
        if sandbox is None:
            return replace(status, upload_url_expires_at=None, lingering=0, agent=AgentStatus(), setup=SetupStatus())
        content, seen, saved = sandbox.state.content, sandbox.state.seen, sandbox.saver.saved_versions.count
        here, held = {*self.snapshotter.unread, *seen.held}, seen.both_changed
        left = (path for path in content.leftovers if not is_within(path, here))
        named = tuple(os.fsencode(path).decode("utf-8", "backslashreplace") for path in held[:MOST_NAMED])
        return replace(
            status,
            upload_url_expires_at=sandbox.delivery.url_expires_at,
            lingering=sum(content.versions_of(path)[-1].kind is not Kind.DIRECTORY for path in left),
            agent=AgentStatus(saved, named, len(held), seen.looked_at, len(seen.changed)),
            setup=sandbox.setup.status,
        )

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about the last scan, the sandbox and the state folder."""
        return [*self.snapshotter.warnings, *self.sandbox_warnings]

    @property
    def sandbox_warnings(self) -> list[SyncWarning]:
        return [*(self.sync.warnings if self.sync else []), *self.work_saver.warnings, *self._left]

    # -- from one sandbox to the next

    def recall(self) -> None:
        """Read what an earlier process recorded: the manifest that the sandbox holds, as far as it is known."""
        self.work_saver.recall(self._open)
        target = self.provider.known
        if target is None:
            return
        recorded = last_target(self.access.db, self.name)
        if recorded is None or recorded.same_sandbox(target) or recorded.base_url != target.base_url:
            self._switch_to(target)

    def _open(self, target: Target) -> Sandbox:
        folder = "copies" if self.name == MAIN else f"copies-{self.name}"
        copies_folder = os.path.join(self.access.folders.spool, folder)
        searched, is_excluded = self._workspace.searched, self.snapshotter.scanner.is_excluded
        return Sandbox(self.access, target, copies_folder, searched, is_excluded)

    def note_released(self, sandbox_id: str) -> bool:
        """Note that a command released a sandbox; true if it is this one.

        Another one is acquired, or nothing there counts as synced.
        """
        target, sandbox = self.target, self.sandbox
        if target is None or target.sandbox_id != sandbox_id:
            return False
        if sandbox is not None:
            sandbox.state.note_released()
        self.work_saver.note_done(target)  # by the command
        self.provider.mark_lost(target)
        return True

    @property
    def again_at_s(self) -> float:
        """The next monotonic second at which a sync tries again there what it could not; infinity: there is none."""
        if self.sandbox is None:
            return inf
        times_s = (self.sandbox.state.seen.look_again_at_s, self.sandbox.removals.again_at_s)
        # Of those that have passed, nobody could look just now.
        return min((at_s for at_s in times_s if at_s > self.access.clock.monotonic_s()), default=inf)

    @property
    def save_at_s(self) -> float:
        """The monotonic second at which the agent's work is to be saved, as its sandbox ends; infinity if none is."""
        is_begun = self.sandbox is None or self.work_saver.is_begun(self.sandbox.target)
        return self.work_saver.due_s if is_begun else min(self.work_saver.due_s, self.provider.replace_at_s)

    def save_before_end(self) -> None:
        """Save the agent's work in a sandbox that ends soon, and again until its end. Raises `Stop`."""
        acquired_sandbox, ends_at_s = self.provider.acquired_sandbox, self.provider.replace_at_s
        if self.sandbox is not None and acquired_sandbox is not None and ends_at_s <= self.access.clock.monotonic_s():
            self.work_saver.begin(self.sandbox, margin_s(acquired_sandbox))
        self.work_saver.save_due()

    def _leave_recorded_sandbox(self, target: Target) -> None:
        """Save the agent's work in the sandbox of the last record, if another one takes its place now."""
        recorded = last_target(self.access.db, self.name)
        if recorded is None or recorded.same_sandbox(target) or recorded.base_url != target.base_url:
            return
        current = self.sandbox
        if current is None or not current.target.same_sandbox(recorded):
            current = self._switch_to(recorded).sandbox
        self.work_saver.before_move(current)

    def _current(self, observer: SyncObserver) -> SandboxSync:
        if self.provider.known is None:
            self.save_before_end()
        target = self.provider.target(observer.wait_out)
        if self.sync is not None and self.sync.sandbox.target == target:
            return self.sync
        self._leave_recorded_sandbox(target)
        return self._switch_to(target)

    def _switch_to(self, target: Target) -> SandboxSync:
        sandbox = self._open(target)
        if sandbox.state.content.is_known:
            sandbox.state.share(self.snapshotter.shared(sandbox.state.content.base))
            sandbox.agent_repository.recall(sandbox.state.content.base, sandbox.state.revision)
        self._workspace.states[self.name] = sandbox.state
        self.sync = SandboxSync(sandbox, self._workspace, self.snapshotter, self.work_saver)
        return self.sync

    def _leave_sandbox(self, failure: StepFailed) -> bool:
        """Forget the acquired sandbox if it is gone, and nothing of one that is configured: it may come back.

        True if another one may be acquired. Raises `StepFailed` if the API does not say, or says that it is there.
        """
        sandbox, acquired = self.sandbox, self.provider.acquired_sandbox
        if failure.refusal is not SandboxNotFound or sandbox is None or acquired is None:
            return False
        if not sandbox.looks.ask_if_gone(failure):
            message = f"{failure.message}, and that it is there when asked for it"
            raise StepFailed(failure.step, FailureAction.RETRY, message)
        sandbox.forget()
        self.provider.mark_lost(sandbox.target)
        save_followed(sandbox.saver, sandbox.state, Why.SANDBOX_ENDED)
        self._note_left(sandbox.target.sandbox_id)
        del self._workspace.states[self.name]
        self.sync = None
        return True

    def _note_left(self, sandbox_id: str) -> None:
        what = f"the sandbox {one_line(sandbox_id)} was gone before its time, and was left for another one"
        remedy = "`syncd saved` lists what is here of its agent's work; `syncd sandbox list` shows what the account has"
        self._left = [*self._left, SyncWarning(f"left:{sandbox_id}", what, remedy)][-MOST_NAMED:]

    # -- the syncs

    def run(self, sync_mode: SyncMode, observer: SyncObserver) -> Outcome:
        """Sync once.

        Raises `NeedsPerson`, `TryLater`, `StepFailed`, `Superseded`, `Stop`; nothing is recorded by half.
        """
        if self.sync is not None:
            self.sync.read_again()
        ended: StepFailed
        for _ in range(2):
            try:
                return self._current(observer).run(sync_mode, observer)
            except StepFailed as failure:
                if not self._leave_sandbox(failure):
                    raise
                ended = failure
        # The next sync acquires another sandbox, at a bounded rate.
        message = f"the sandbox ended as soon as it was acquired ({ended.message})"
        raise StepFailed(ended.step, FailureAction.RETRY, message, "it goes on with another one")

    def follow_in_repository(self) -> None:
        """Have the sandbox's git repository follow what was sent. Raises `Superseded` for newer changes, and `Stop`."""
        sandbox = self.sandbox
        if sandbox is None or not self.content.is_certain:
            return
        if not sandbox.partial_archives.replaces:  # such a sandbox would lose the repository with each archive
            sandbox.agent_repository.follow(self.content.base, sandbox.state.revision)
