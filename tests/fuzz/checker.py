"""The checks of a simulation: what reaches each sandbox is noted, and what it holds is compared with the workspace."""

from __future__ import annotations

import contextlib
import io
import os
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, BinaryIO

from syncd.cli.agent_side import is_named
from syncd.emulator.extract import ArchiveRefused
from syncd.model.entry import Kind
from syncd.model.manifest import Manifest, is_within
from syncd.report.status_publisher import StatusPublisher
from syncd.sandbox.look_request import was_emptied
from syncd.sandbox.provider import MOST_ACQUIRED, SPAN_S
from syncd.scan.exclusions import OUTSIDE, PathRules
from syncd.scan.guards import LEFT_ONE_IN
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Decision, Selection
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.work_saver import AFTER_FAILURE_S
from tests.clock import NOON_S
from tests.emulator import Emulator, RequestRecord, Sandbox
from tests.fuzz.account import Account, by_digest, is_draft, note_look
from tests.fuzz.clock import SimulatedClock
from tests.fuzz.model import FOLDER, Entry, SandboxModel, Sent, not_deleted, sent_in, shown
from tests.fuzz.operations import MARKS, is_symlink_loop, remove, tree
from tests.fuzz.settings import Settings
from tests.recorded import records
from tests.system.trees import Tree

# Parsed once, as every scenario has the same rules to begin with.
SELECTION = Selection()


@dataclass
class TrackedSandbox:
    """One sandbox and its model. `paths` are those of its last archive; `is_full`: it had to hold everything."""

    sandbox: Sandbox
    model: SandboxModel = field(default_factory=SandboxModel)
    paths: set[str] = field(default_factory=set)
    is_full: bool = False
    is_used: bool = False  # something was put there
    unrecorded: set[str] = field(default_factory=set)  # put there, and not recorded by syncd as there


class Checker:
    """Tracks the sandboxes of one simulation, and notes in `lost` each promise of syncd that was broken.

    `is_plain`: the default configuration and no agent, which allows stricter checks.
    """

    def __init__(
        self,
        emulator: Emulator,
        clock: SimulatedClock,
        workspace: Path,
        figures: Counter[str],
        settings: Settings,
        account: Account,
        *,
        is_plain: bool,
    ) -> None:
        self.emulator = emulator
        self.clock = clock
        self.workspace = workspace
        self.figures = figures
        self.settings = settings
        self.account = account
        self.saved = account.saved
        self.is_aside = False  # what is looked at now is not known to a sync
        self.decided: set[tuple[str, Entry]] = set()  # versions there that a person lets be overwritten
        self._unpacks_late = False  # what a merge took over may have been undone since: then it is saved
        self._written_late: set[str] = set()  # perhaps over a version that the last look found
        self.holds_initialize = False  # the next archive is unpacked late, after its request was answered with an error
        self.ended_early: set[str] = set()
        self._held_archives: list[tuple[TrackedSandbox, bytes, bool]] = []
        self._arrived_in = ""
        self.lost: list[str] = []
        self.sandbox_id = settings.current.sandbox.id or ""  # the one that the daemon syncs to
        self.sandboxes: dict[str, TrackedSandbox] = {}
        self.cycle: SyncCycle | None = None  # the last daemon's
        self.is_plain = is_plain
        self.is_forced = False  # the sync that is under way
        self.is_short: Callable[[str], bool] = lambda _path: False  # it cannot be sent now
        self.is_late = False  # an execution that syncd knows nothing of is under way
        self.wipes_sandboxes = False  # before each initialize, so that each archive must hold everything
        self.state_damaged = self._sets_state_aside = False
        self._left_to_end: set[str] = set()
        self.operations = self._operations_at_sync = 0
        self._acquired_wall_s: list[float] = []
        self.track(emulator.create_sandbox(self.sandbox_id))

    def lose(self, message: str) -> None:
        """Note a broken promise."""
        self.lost.append(message)

    @property
    def current(self) -> TrackedSandbox | None:
        """The sandbox that the daemon syncs to."""
        return self.sandboxes.get(self.sandbox_id)

    @property
    def live(self) -> TrackedSandbox | None:
        """The sandbox that the daemon syncs to, unless it has ended."""
        tracked = self.current
        return None if tracked is None or self.has_ended(tracked) else tracked

    def has_ended(self, tracked: TrackedSandbox) -> bool:
        """True if the API no longer knows it."""
        return self.emulator.sandbox(tracked.sandbox.id) is None

    # -- what happens

    def track(self, sandbox: Sandbox) -> None:
        """Note each archive that is unpacked there, and look for the marks in each archive."""
        tracked = self.sandboxes[sandbox.id] = TrackedSandbox(sandbox)
        initialize, execute = sandbox.initialize, sandbox.execute

        def tracked_initialize(packed: BinaryIO) -> None:
            self.deliver_held()
            if self.holds_initialize:
                self.holds_initialize = False
                self._held_archives.append((tracked, packed.read(), self.is_forced))
                raise TimeoutError("the extraction goes on without an answer")
            start = packed.tell()
            tar = zlib.decompress(packed.read(), 31)
            packed.seek(start)
            for mark in MARKS:
                if mark in tar:
                    self.lose(f"{mark.decode()} was uploaded")
            self._account_for_removals(tracked)
            if self.wipes_sandboxes:
                self._account_for_end(tracked, "was removed by an archive")
                for item in os.scandir(sandbox.workspace):
                    remove(Path(item.path))
                tracked.model.cleared()
            sent, tracked.is_used = sent_in(tar), True
            self.lost += [f"the temporary file {path!r} was uploaded" for path in sent if is_draft(path)]
            try:
                initialize(packed)
            except ArchiveRefused as error:
                is_of_link = "leads out" in str(error) and any(entry[0] == "link" for _, entry in tracked.model.made)
                if self.is_plain or not ("could not be extracted" in str(error) or is_of_link):
                    self.lose(f"an archive cannot be extracted: {error}")
                remote = tree(sandbox.workspace)  # what could be extracted is there
                self._account_for_archive(tracked, sent, remote)
                tracked.model.extracted(sent, remote)
                raise
            remote = tree(sandbox.workspace)
            self._account_for_archive(tracked, sent, remote)
            tracked.model.extracted(sent, remote)
            if self._unpacks_late:
                self._written_late |= sent.keys()
            tracked.unrecorded |= sent.keys()
            tracked.paths, tracked.is_full = set(sent), self.settings.of_daemon.sync.archive == "full"
            for other in self.sandboxes.values():
                if other is not tracked:
                    other.model.forget()  # syncd's records are of one sandbox only
            self.figures["initialized"] += 1
            self.figures["partial archives"] += not tracked.model.synced.keys() <= tracked.paths and not tracked.is_full

        def tracked_execute(name: str, packed: BinaryIO, *more: Any) -> None:
            if not self.is_late and not self.is_aside:
                note_look(tracked.model, packed)
            execute(name, packed, *more)
            if not sandbox.holds:
                sandbox.wait()

        sandbox.initialize = tracked_initialize  # type: ignore[method-assign]
        sandbox.execute = tracked_execute  # type: ignore[method-assign]

    def note_dump(self) -> None:
        """Note that a dump begins, which shows everything."""
        for tracked in [] if self.is_aside else self.sandboxes.values():
            tracked.model.looked()

    def note_arrived(self) -> None:
        """Note that a sync succeeded."""
        if self._arrived_in not in ("", self.sandbox_id):
            self.note_left(self._arrived_in)
        self._arrived_in = self.sandbox_id
        tracked, sandbox = self.current, self.cycle.sandbox if self.cycle is not None else None
        if tracked is None or sandbox is None:
            return
        # If something was changed meanwhile, it is not known here what was wanted then.
        is_agents = bool(tracked.model.made or tracked.model.agent)
        wanted = self.wanted() if is_agents and self.is_unchanged_since_sync else tracked.model.synced
        if not self.is_unchanged_since_sync:
            wanted = {path: entry for path, entry in wanted.items() if path not in tracked.model.agent}
        tracked.model.arrived(wanted, sandbox.state.seen.kept, looked=self._looks and not self._nobody_looked)

    def note_left(self, sandbox_id: str) -> None:
        """Check that all that was changed in a sandbox was saved before another one took its place.

        One that ends by itself is saved until then: it is checked at the end of the story.
        """
        ending = self.cycle.work_saver._ending if self.cycle is not None else []
        if any(each.sandbox.target.sandbox_id == sandbox_id and each.next_s < inf for each in ending):
            self._left_to_end.add(sandbox_id)
            return
        tracked = self.sandboxes.get(sandbox_id)
        unsaved = self.cycle is None or any(each.key in ("unsaved", "ended") for each in self.cycle.warnings)
        if tracked is None:
            return
        # With "overwrite" nobody saves anything, and to the API there may be no such sandbox.
        if not self._looks or (unsaved and self._is_unknown(tracked)):
            self.account.excuse_all(tracked.model.gone({}))
        if tracked.is_used and self._looks and not unsaved and not self.has_ended(tracked):
            self.figures["sandboxes left"] += 1
            self._account_for_end(tracked, "was left in a sandbox that is not used any more")

    def check_left(self) -> None:
        """Check the sandboxes that were left to their end, once another daemon had its time for them."""
        left, self._left_to_end = self._left_to_end, set()
        for sandbox_id in left:
            if self.cycle is not None and not self.state_damaged:
                self.cycle.work_saver._ending = []
                self.note_left(sandbox_id)

    # -- what becomes of the agent's versions

    def _account_for_removals(self, tracked: TrackedSandbox) -> None:
        """Check that what executions removed of the agent's was saved, and that it was removed for a reason."""
        if not tracked.model.made or self.has_ended(tracked):
            return
        gone = tracked.model.gone(tree(tracked.sandbox.workspace))
        for path, (entry, _) in gone.items():
            self.figures["versions removed"] += 1
            if not self._looks or self.account.is_settled(path, entry):
                self.account.excuse(path, entry)
                continue
            if not self._is_saved(path, entry):
                self.lose(f"the agent's {path!r} ({shown(entry)}) was removed in the sandbox, and is not saved")
            elif (
                (path, entry) not in self.decided
                and not self.is_forced
                and self.is_unchanged_since_sync
                and self.workspace.is_dir()
                and not os.path.lexists(self.workspace / path)
            ):
                self.lose(f"the agent's {path!r} ({shown(entry)}) was removed in the sandbox, as it is not here")
        tracked.model.removed(gone)

    def _account_for_archive(self, tracked: TrackedSandbox, sent: Mapping[str, Sent], remote: Tree) -> None:
        """Check that an archive had a right to overwrite what it overwrote of the agent's."""
        model = tracked.model
        if not model.made or not self._looks:
            self.account.excuse_all(model.gone(remote))
            return
        for path, (entry, seen) in model.gone(remote, late=self._unpacks_late).items():
            if self.account.is_settled(path, entry):
                continue
            self.figures["versions overwritten"] += 1
            what = f"the agent's {path!r} ({shown(entry)}) was overwritten"
            # Nothing keeps one that is unpacked late from what was sent again in it, so that was saved.
            is_excused = self.is_forced or (self._unpacks_late and self._is_saved(path, entry))
            only_agents = model.is_only_agents(path, sent) and not is_excused
            if (path, entry) in self.decided:
                if not seen or self._nobody_looked:
                    self.account.excuse(path, entry)
                elif not self._is_saved(path, entry):
                    self.lose(f"{what} by a person's choice, and is not saved")
            elif only_agents and model.stays(path):
                self.lose(f"{what}, and syncd knew that it stays")
            elif not seen or (self._nobody_looked and self._agent_changes == "save"):
                self.figures["versions not looked at"] += 1
                self.account.excuse(path, entry)
            elif only_agents:
                self.lose(f"{what}, and nobody changed it here")
            elif self._agent_changes == "hold" and not self.is_forced and not self._unpacks_late:
                self.lose(f"{what}, and it is to be held")
            elif not self._is_saved(path, entry):
                self.lose(f"{what}, and is not saved")

    def _account_for_end(self, tracked: TrackedSandbox, what: str) -> None:
        """Check that all that ends with a sandbox is saved, but for what the rules leave out."""
        self._account_for_removals(tracked)
        if not self._looks or self.cycle is None:
            self.account.excuse_all(tracked.model.gone({}))
            return
        is_excluded = self.is_excluded()
        for path, (entry, seen) in tracked.model.gone({}).items():
            if not seen or self._nobody_looked or self.account.is_settled(path, entry) or is_excluded(path, False):
                self.figures["versions not looked at"] += 1
                self.account.excuse(path, entry)
            elif not self._is_saved(path, entry) and not self._is_in_another(tracked, path, entry):
                self.lose(f"the agent's {path!r} ({shown(entry)}) {what}, and is not saved")

    @property
    def _agent_changes(self) -> str:
        return self.settings.of_daemon.sandbox.agent_changes

    @property
    def _looks(self) -> bool:
        return self._agent_changes != "overwrite"

    @property
    def _nobody_looked(self) -> bool:
        sandbox = self.cycle.sandbox if self.cycle is not None else None
        return sandbox is not None and any(each.key == "remote-changes" for each in sandbox.looks.warnings)

    def _is_saved(self, path: str, entry: Entry) -> bool:
        """True if that version is saved or at home; nothing is known of them once the state was damaged."""
        return self.state_damaged or self.account.is_at_home(path, entry) or self.saved.holds(path, entry)

    def _is_in_another(self, tracked: TrackedSandbox, path: str, entry: Entry) -> bool:
        """True if the sandbox of now, which is another one, has it: it came there over the workspace."""
        current = self.current
        return current is not None and current is not tracked and tree(current.sandbox.workspace).get(path) == entry

    def is_excluded(self) -> Callable[[str, bool], bool]:
        """Return the rules of the workspace as they are now: true for a path, folder or not, that they leave out."""
        if not self.workspace.is_dir():
            return lambda _path, _is_dir: True  # it was moved away, and its rules with it
        return PathRules(str(self.workspace), SELECTION, "").exclude

    # -- moves, late archives, and ends

    def move_to(self, sandbox_id: str) -> None:
        """Have the configuration name another sandbox, which is there."""
        if self.emulator.sandbox(sandbox_id) is None and sandbox_id not in self.sandboxes:
            self.track(self.emulator.create_sandbox(sandbox_id))
        self.settings.move_to(sandbox_id)

    def deliver_held(self) -> None:
        """Unpack the archives whose requests were answered before they were."""
        held, self._held_archives = self._held_archives, []
        if not held:
            return
        is_forced, self._unpacks_late = self.is_forced, True
        for tracked, packed, was_forced in held:
            if not self.has_ended(tracked):
                self.is_forced = was_forced
                with contextlib.suppress(ArchiveRefused, OSError):
                    tracked.sandbox.initialize(io.BytesIO(packed))
        self.is_forced, self._unpacks_late = is_forced, False

    def all_live(self) -> list[TrackedSandbox]:
        """Return all sandboxes that have not ended."""
        return [tracked for tracked in self.sandboxes.values() if not self.has_ended(tracked)]

    def note_jump(self, seconds: float, living: Iterable[TrackedSandbox] | None = None) -> None:
        """Note that time passes at once, or has for these, in which nothing can be saved before a sandbox's end."""
        now_wall_s = NOON_S + self.clock.boottime_s()
        for tracked in self.all_live() if living is None else living:
            ends_wall_s = tracked.sandbox.record.expires_at_s
            if ends_wall_s is not None and ends_wall_s <= now_wall_s + seconds:
                self.ended_early.add(tracked.sandbox.id)

    def note_choice(self, choice: str, named: Collection[str]) -> None:
        """Note what a person lets go for these paths: what is here, or, once it is saved, what is in the sandbox."""
        if choice == "theirs":
            self.account.person_gave_up(named)
        elif self.live is not None:
            remote = tree(self.live.sandbox.workspace)
            decided = {each for each in remote.items() if is_named(each[0], named)}
            self.decided |= decided

    def excuse_ended(self, late_s: float) -> None:
        """Excuse what nobody could save: made too late before its sandbox's end, or there when that ended early."""
        for tracked in self.sandboxes.values():
            if not tracked.is_used and tracked is not self.current:
                self.account.excuse_all(tracked.model.gone({}))
            if not self.has_ended(tracked):
                continue
            ends_wall_s = tracked.sandbox.record.expires_at_s
            is_early = tracked.sandbox.id in self.ended_early or self._refused_last(tracked)
            ends_s = -inf if ends_wall_s is None or is_early else ends_wall_s - NOON_S
            gone = tracked.model.gone({})
            self.account.excuse_made_after({path: entry for path, (entry, _) in gone.items()}, ends_s - late_s)

    def _refused_last(self, tracked: TrackedSandbox) -> bool:
        """True if the API refused the last look, when there was no time for another one."""
        ends_wall_s = tracked.sandbox.record.expires_at_s or 0.0
        last = self._last_look(tracked)
        return last is not None and (last.status or 0) >= 400 and last.started_at > ends_wall_s - AFTER_FAILURE_S

    def _is_unknown(self, tracked: TrackedSandbox) -> bool:
        last = self._last_look(tracked)
        return last is not None and last.status == 404

    def _last_look(self, tracked: TrackedSandbox) -> RequestRecord | None:
        looks = ("execute", "dump")
        log = self.emulator.request_log.entries()
        return next((each for each in reversed(log) if each.sandbox == tracked.sandbox.id and each.op in looks), None)

    def note_acquire(self) -> None:
        """Track a sandbox that the request acquired."""
        for sandbox in self.emulator.sandboxes():
            if sandbox.id in self.sandboxes:
                continue
            assert isinstance(sandbox, Sandbox)
            self.track(sandbox)
            self.figures["acquired"] += 1
            now_s = self.clock.wall_s()
            self._acquired_wall_s.append(now_s)
            if sum(now_s - at_s < SPAN_S - 1 for at_s in self._acquired_wall_s) > MOST_ACQUIRED:
                self.lose(f"more than {MOST_ACQUIRED} sandboxes were acquired in {SPAN_S:.0f} s")

    def note_not_found(self) -> None:
        """Note that syncd was told that a sandbox has ended: it forgets what remains from before the last archive."""
        for tracked in self.sandboxes.values():
            tracked.model.forget(tracked.model.synced.keys() - tracked.paths)

    def note_operation(self) -> None:
        self.account.person_changed()
        for tracked in self.sandboxes.values():
            tracked.model.note_obstructed(self.workspace)

    def note_process_end(self, state: Path) -> None:
        """Forget what the next process cannot know: an initialize without an answer, where nothing is deleted."""
        sandbox = self.settings.of_daemon.sandbox
        sets_aside, self._sets_state_aside = self._sets_state_aside, False
        for tracked in self.sandboxes.values():
            if sets_aside:
                tracked.model.forget()
            if "uncertain" in records(state):
                if sandbox.deletions == "keep" and sandbox.agent_changes == "overwrite":
                    tracked.model.forget(tracked.unrecorded)
            else:
                tracked.unrecorded.clear()

    def note_state_damage(self) -> None:
        """Forget what syncd had recorded: what it put there, and what it acquired.

        A process that has the file open goes on with it, and the next one sets it aside. What is there counts as an
        agent's from then on.
        """
        self.state_damaged = self._sets_state_aside = True
        self.is_plain = False
        self.note_clock_set()
        for tracked in self.sandboxes.values():
            tracked.model.forget()

    def note_clock_set(self) -> None:
        """Forget the acquired sandboxes, whose times were those of the old clock."""
        self._acquired_wall_s.clear()

    def note_sync(self) -> None:
        """Note that a sync begins."""
        self._operations_at_sync = self.operations
        for tracked in self.sandboxes.values():
            tracked.model.saw()

    @property
    def is_unchanged_since_sync(self) -> bool:
        """True if there was no operation since the sync began."""
        return self.operations == self._operations_at_sync

    def wait_for_executions(self) -> None:
        """Wait for all programs in the sandboxes, except where they are held."""
        for tracked in list(self.sandboxes.values()):
            if not tracked.sandbox.holds:
                tracked.sandbox.wait()
                self._account_for_removals(tracked)

    # -- what must hold

    def wanted(self) -> Tree:
        """Return what must be in the sandbox, by a scan that knows nothing."""
        loops = set()

        def note(path: str, is_dir: bool, decision: Decision) -> None:
            if decision is OUTSIDE and is_symlink_loop(self.workspace, path):
                loops.add(path)

        included = Scanner(str(self.workspace), SELECTION, on_excluded=note).scan().manifest.keys() | loops
        found = tree(self.workspace).items()
        return {path: entry for path, entry in found if path in included and not self.is_short(path)}

    def compare(self) -> None:
        """Compare the sandbox with the workspace and the model."""
        tracked = self.live
        if tracked is None:
            self.lose(f"the sandbox {self.sandbox_id} has ended")
            return
        self.wait_for_executions()
        everything, remote = self.wanted(), tree(tracked.sandbox.workspace)
        wanted = self._unblocked(everything)
        for path in self.blocked():
            if (
                path in everything
                and not self._leads_through_taken(path, everything[path], remote)
                and tracked.model.is_free_for(path, everything[path], remote)
            ):
                self.lose(f"{path!r} is reported as blocked, and only syncd has its place")
        self.lost += tracked.model.missing(self._without_held(wanted), remote)
        # With "overwrite" a folder that is empty goes with the file of ours whose place it had.
        folders = set() if self._looks else {(path, FOLDER) for path in tracked.model.agent}
        self.lost += tracked.model.lost_agent_files(remote, self.decided | folders)
        if self.is_plain:
            extra = {path for path in remote.keys() - wanted.keys() if not is_within(path, self.held())}
            self.lost += not_deleted(extra, remote)
        deletions = {values[0] for values in self.settings.history}
        if self.settings.current.sandbox.deletions != "keep":
            left_over = tracked.model.left_over(wanted, self._unblocked(remote))
            left_over = [path for path in left_over if not is_within(path, self.held())]
            self.lost += not_deleted(left_over, remote)
        if deletions == {"keep"}:
            blocked = {path: entry for path, entry in tracked.model.synced.items() if self._is_blocked(path)}
            self.lost += tracked.model.wrongly_removed({**remote, **blocked})
        if tracked.is_full:
            unsent = self._without_held(wanted).keys() - tracked.paths
            ours = [path for path in unsent if not tracked.model.is_someone_elses(path)]
            self.lost += [f"{path!r} was in no archive" for path in ours]
        held = set(self.held())
        for path in held:
            is_known = self.state_damaged or path in self._written_late
            if not is_known and not tracked.model.is_someone_elses(path):
                self.lose(f"{path!r} is held, and nobody changed it in the sandbox")
        if self._agent_changes == "save":
            unwritten = [path for path in tracked.model.unwritten(wanted, remote) if not is_within(path, held)]
            self.lost += [f"{path!r} was changed on both sides, and is not written" for path in unwritten]
        self._check_saved()

    def _leads_through_taken(self, path: str, entry: Entry, remote: Tree) -> bool:
        """True for a link that leads through a path that is blocked, or where someone there has a link."""
        if entry[0] != "link":
            return False
        target = os.path.normpath(os.path.join(os.path.dirname(path), str(entry[1])))
        links = {each for each, there in remote.items() if there[0] == "link" and each not in self.wanted()}
        return is_within(target, {each for each in self.blocked() if each != path} | links)

    def _check_saved(self) -> None:
        """Check that only versions of the agent are saved, where syncd knows what it had put there."""
        treatments = {values[5] for values in self.settings.history}
        # After a 404 the sandbox counts as gone, with all that is known of it.
        log = self.emulator.request_log.entries()
        was_gone = any(entry.status == 404 and entry.sandbox == self.sandbox_id for entry in log)
        if self.state_damaged or was_gone or len(self.sandboxes) > 1 or "overwrite" in treatments:
            return
        made = {(path, by_digest(entry)) for path, entry in self.sandboxes[self.sandbox_id].model.made}
        for path, entry in self.saved.all():
            if entry != FOLDER and (path, entry) not in made:
                self.lose(f"{path!r} was saved as the agent's, who did not make it")

    @property
    def is_emptied(self) -> bool:
        """True if its agent removed nearly all that is wanted in the sandbox, which the next process fills again."""
        tracked = self.live
        there = {} if tracked is None else tree(tracked.sandbox.workspace)
        wanted = self.wanted()
        return was_emptied(sum(path not in there for path in wanted), len(wanted))

    def missing(self, wanted: Tree) -> list[str]:
        """Return the wanted paths that a live sandbox lacks; none if it has ended."""
        tracked = self.live
        return (
            []
            if tracked is None
            else tracked.model.missing(self._without_held(wanted), tree(tracked.sandbox.workspace))
        )

    def check_replaced(self, before: Manifest) -> None:
        """Check that an unforced sync after the workspace was replaced kept enough of the files it had before."""
        files = [path for path, entry in before.items() if entry.kind is not Kind.DIRECTORY]
        if not self.is_unchanged_since_sync:
            return  # it may have been as large as before when it was scanned
        places = [self.workspace / path for path in files]
        left = [place for place in places if place.is_symlink() or place.is_file()]
        if len(left) * LEFT_ONE_IN < len(files):
            self.lose(f"another workspace was taken for the one that held {len(files)} files")

    def blocked(self) -> tuple[str, ...]:
        """Return the paths that the last daemon reported as blocked: these and all below stay as they are."""
        warnings = self.cycle.warnings if self.cycle is not None else []
        return tuple(each.key.removeprefix("obstacle:") for each in warnings if each.key.startswith("obstacle:"))

    def held(self) -> tuple[str, ...]:
        """Return the paths that the last daemon holds, as both sides changed them."""
        sandbox = self.cycle.sandbox if self.cycle is not None else None
        return sandbox.state.seen.both_changed if sandbox is not None else ()

    def has_unremoved(self) -> bool:
        """True if the last daemon could not remove something in the sandbox."""
        sandbox = self.cycle.sandbox if self.cycle is not None else None
        return sandbox is not None and bool(sandbox.state.unremoved)

    def has_other_links(self) -> bool:
        """True if an included file has hard links that are excluded."""
        files = [(self.workspace / path).lstat() for path, entry in self.wanted().items() if entry[0] == "file"]
        names = Counter(status.st_ino for status in files)
        return any(status.st_nlink > names[status.st_ino] for status in files)

    def _is_blocked(self, path: str) -> bool:
        return is_within(path, set(self.blocked()))

    def _without_held(self, paths: Tree) -> Tree:
        held = set(self.held())
        return {path: entry for path, entry in paths.items() if not is_within(path, held)}

    def _unblocked(self, paths: Tree) -> Tree:
        return {path: entry for path, entry in paths.items() if not self._is_blocked(path)}


class FlushCheck:
    """A client that waits for a flush: if it succeeds, what was wanted when it was requested must be there.

    What it reads in the status then is not that a sync is under way, unless one more `follows` at once.
    """

    waits = True

    def __init__(self, checker: Checker, publisher: StatusPublisher, follows: Callable[[], bool]) -> None:
        self._checker = checker
        self._publisher = publisher
        self._follows = follows
        self._operations = checker.operations
        self._wanted = checker.wanted()

    def send(self, message: dict[str, Any]) -> None:
        """Ignore progress."""

    def done(self, exit_code: int, message: str = "", **more: Any) -> None:
        if exit_code:
            return
        self._checker.figures["flushes confirmed"] += 1
        state = self._publisher.now.state
        if state in (State.SNAPSHOTTING, State.UPLOADING, State.INITIALIZING) and not self._follows():
            self._checker.lose(f"flush ended, and the status tells of {state}")
        if self._operations == self._checker.operations:  # else it may be another file by now
            now = self._checker.wanted()  # a command may have brought another one home
            missing = self._checker.missing(
                {path: each for path, each in self._wanted.items() if now.get(path) == each}
            )
            if missing:
                self._checker.lose(f"flush reported that all is in the sandbox, and {missing[:4]}")
