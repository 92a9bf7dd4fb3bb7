"""A simulation runs a scenario on a daemon in this process: the real loop, watch, files and requests, in scripted time.

Not real are: time, which passes where the loop would wait; the thread of the watch, whose events are read when the
scenario says; and `kill -9`, which is an exception, after which state and spool are put back to what they were at that
moment. File times are translated to the scripted clock; `file_times('coarse')` rounds them to two seconds, as FAT does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncd.archive.snapshotter import SyncMode
from syncd.core.api_key import ApiKey
from syncd.core.directories import directories_for
from syncd.core.errors import NeedsPerson
from syncd.core.signals import Interrupt, Signals
from syncd.core.waiter import Waiter
from syncd.daemon import build
from syncd.daemon.sync_requests import SyncRequest
from syncd.emulator.api import ApiError
from syncd.report.status_publisher import RunFacts
from syncd.sync.synced_hook import SyncedHook
from tests.emulator import Emulator
from tests.fuzz.account import Account, SavedEntries
from tests.fuzz.checker import Checker, FlushCheck, TrackedSandbox
from tests.fuzz.clock import SimulatedClock
from tests.fuzz.commands import FOLLOW_S, Commands, WayHome
from tests.fuzz.git import tips
from tests.fuzz.inotify import ManualInotify
from tests.fuzz.lasting import Lasting
from tests.fuzz.operations import AGENT_STEPS, Operations, SandboxAgent, damage, remove, tree
from tests.fuzz.scenario import DAEMON_STEPS, UNUSUAL, WAY_HOME_STEPS, Scenario, Step
from tests.fuzz.settings import Settings

if TYPE_CHECKING:
    from tests.fuzz.daemon import SimulatedDaemon, SimulatedLoop

KEY = "sk-key-of+the/tests="
SANDBOX = "box"
# What is done to files before it happens is told by an audit hook: these are injection points.
EFFECTS = frozenset({"open", "os.rename", "os.remove", "os.scandir", "os.listdir", "os.mkdir", "os.rmdir"})
# A daemon that has waited so often and is not idle never will be.
MAX_WAITS = 400


class Killed(BaseException):
    """The process was killed."""


class Simulation:
    """One scenario's workspace, folders and sandboxes, and the daemons that run one after the other."""

    def __init__(
        self,
        emulator: Emulator,
        clock: SimulatedClock,
        folder: Path,
        scenario: Sequence[Step],
        figures: Counter[str],
    ) -> None:
        self.emulator = emulator
        self.clock = clock
        self.folder = folder
        self.figures = figures
        self.scenario: Scenario = list(scenario)
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.operations = Operations(self.workspace, folder)
        names = {step.name for step in self.scenario}
        self.comes_home = not names.isdisjoint(WAY_HOME_STEPS)
        self.environ = {"XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder / "cache")}
        self.folders = directories_for(str(self.workspace), self.environ)
        self.folders.make()
        git, follow_s = "baseline" if "repository" in names else "none", FOLLOW_S if "follow" in names else 0.0
        self.settings = Settings(emulator.base_url, self.workspace, SANDBOX, git, follow_s)
        saved, is_plain = SavedEntries(self.folders.state, clock), names.isdisjoint(UNUSUAL)
        account = Account(self.workspace, saved, self.folders.state)
        self.checker = Checker(emulator, clock, self.workspace, figures, self.settings, account, is_plain=is_plain)
        self.commands = Commands(self, EFFECTS)
        self.way_home = WayHome(self)
        self.daemon: SimulatedLoop | None = None  # the one that runs
        self._rests_until_s: float | None = None
        self.lasting = Lasting(self)
        self.checker.is_short = self.lasting.is_short
        if "lasting" in names:
            self.settings.retry_by_default()
        self.log: list[str] = []
        self.course: list[str] = []  # all that happened, once it has run
        self.coarse_times = False
        self.is_serving = False  # the emulator is at work, in the thread of its client
        self.nearly_empty = False  # the last failure was the disaster guard's
        self.workspace_replaced = False  # and no forced sync has confirmed it
        self.unanswered_jobs: list[str] = []
        self._injects = False
        self._points = 0  # injection points that this sync has reached
        self._pending: list[Step] = []  # at injection points of the next sync
        self._at_request: list[tuple[Any, ...]] = []  # as the step `at_request` gives them
        self._expired_early: set[str] = set()
        self._clock_was_set = self._was_forced = self._was_linked = False
        self._full_scans: int | None = None  # before the one that the end waits for
        self._delayed_waits = 0  # so many waits long events are not read
        self._overflows = False
        self._waits = 0
        self._watches_left: int | None = None
        self._ended = False
        self._saved: list[Path] = []
        self._signals: Signals | None = None
        self._interrupt = Interrupt()

    @property
    def lost(self) -> list[str]:
        return self.checker.lost

    def follow(self) -> None:
        """Look at what the agent made, as the daemon does beside a sync or while it rests."""
        daemon = self.daemon
        if daemon is None or daemon.waits:
            return
        daemon.follower.asked()
        if daemon.follower.due_s <= self.clock.monotonic_s():
            self.figures["looks that follow"] += 1
            # A sync relies on its own look; what this one sees beside it, or where an initialize was not answered, may
            # be half unpacked, and is not kept.
            sandbox = daemon.cycle.sandbox
            is_settled = sandbox is None or not sandbox.state.content.unanswered
            self.checker.is_aside = not (daemon.is_resting and is_settled)
            try:
                with self.injection(enabled=daemon.is_resting):
                    daemon.look()
            finally:
                self.checker.is_aside = False

    def order_daemon(self, message: Mapping[str, Any]) -> bool:
        """Tell the daemon that a command released a sandbox, or have it look soon. False if none runs."""
        if self.daemon is None:
            return False
        if message["do"] == "left":
            if self.daemon.cycle.note_released(message["id"]):
                self.daemon.agenda.sync_soon()
        else:
            self.daemon.follower.note_activity()
        return True

    def is_own(self, args: tuple[Any, ...]) -> bool:
        """True if an effect is in the simulation's folder. Names are relative to a descriptor there.

        What is imported, or read of the machine, differs from process to process.
        """
        path = os.fsdecode(args[0]) if args and isinstance(args[0], str | bytes | os.PathLike) else ""
        return not path.startswith("/") or path.startswith(str(self.folder))

    # -- processes

    @property
    def is_killed(self) -> bool:
        """True while a killed process cleans up."""
        return bool(self._saved)

    def run(self) -> None:
        """Run all steps, wait until the daemon is idle, and do so once more with a new daemon. See `lost`."""
        while not self._ended:
            self._run_offline_steps()
            self._run_process()
        if self.lost:
            return
        self.checker.compare()
        initialized, sandbox_id = self.figures["initialized"], self.checker.sandbox_id
        is_emptied, self._ended = self.checker.is_emptied, False
        is_unremoved = self.checker.has_unremoved()
        self._run_process()
        sent_again = self.figures["initialized"] != initialized and self.checker.sandbox_id == sandbox_id
        # An undo that failed changed what counts as sent, and no file that the daemon would have noticed.
        is_known = is_emptied or self.checker.state_damaged or self.checker.account.has_unended_write
        # What could not be removed or saved is tried once more by each process.
        is_known = is_known or is_unremoved
        is_known = is_known or (self.settings.current.sandbox.agent_changes == "save" and bool(self.checker.held()))
        if not self.lost and not is_known and sent_again:
            self.checker.lose("a new daemon sent again what the last one had sent")
        self.checker.compare()
        self.checker.check_left()
        self.way_home.finish()

    def _run_offline_steps(self) -> None:
        """Run the steps up to the first that needs a daemon."""
        self._pending.clear()
        while self.scenario and self.scenario[0].at is None and self.scenario[0].name not in DAEMON_STEPS:
            self._do(self.scenario.pop(0))

    def _run_process(self) -> None:
        self.figures["daemons"] += 1
        self._interrupt = Interrupt()
        self._waits = self._delayed_waits = 0
        with contextlib.suppress(Killed, NeedsPerson), self._daemon() as daemon:
            self.checker.cycle = daemon.loop.cycle
            self.daemon = daemon.loop
            daemon.run()
        self.daemon = None
        for copy in self._saved:  # undoes what the killed process wrote while it cleaned up
            remove(self.folder / copy.name)
            copy.rename(self.folder / copy.name)
        self._saved.clear()
        self.checker.note_process_end(Path(self.folders.state))
        self.commands.go_on()  # without the daemon

    @contextlib.contextmanager
    def _daemon(self) -> Iterator[SimulatedDaemon]:
        self.settings.of_daemon = self.settings.current
        self._signals = Signals(self._interrupt)
        with build.daemon_of(
            self.settings.current,
            # A daemon that has synced once does not end with an error that only a person can fix, but waits.
            RunFacts(os.getpid(), synced_once=True),
            keys={"main": ApiKey(KEY, "the scenario")},
            environ=self.environ,
            waiter=Waiter(self._interrupt, self.clock),
            signals=self._signals,
            synced_hook=SyncedHook(self.environ, self.clock),
        ) as daemon:
            yield daemon  # type: ignore[misc]

    # -- waits

    def wait(self, daemon: SimulatedLoop, until_s: float | None) -> None:
        """Run the next step while the daemon waits, or else let time pass."""
        if until_s is not None and until_s <= self.clock.monotonic_s():
            self._read_events()
            return
        self._waits += 1
        if self._next_is("wait_idle"):
            self.release_executions()
            self.checker.deliver_held()
        self.checker.sandbox_id = daemon.sandbox_id or self.checker.sandbox_id
        self._delayed_waits = max(0, self._delayed_waits - 1)
        if self._waits > MAX_WAITS:
            self.checker.lose(f"the daemon does not become idle: {daemon.publisher.now.last_error}")
            self._end()
        elif not self.scenario:
            self._finish(daemon, until_s)
        elif (self._next_is("wait_idle") and not self._is_idle(daemon)) or (
            self._next_is("wait_failing") and not (daemon.is_failing or self._is_idle(daemon))
        ):
            self._pass_time(until_s)
        elif self._next_is("rest"):
            self._rest(until_s, self.scenario[0].args[0])
        else:
            self._waits = 0
            self._run_step(daemon, self.scenario.pop(0))

    def _rest(self, until_s: float | None, seconds: float) -> None:
        """Let so much time pass, in which the daemon does all that is due."""
        now_s = self.clock.monotonic_s()
        self._rests_until_s = now_s + seconds if self._rests_until_s is None else self._rests_until_s
        if now_s >= self._rests_until_s:
            self._rests_until_s = None
            self.scenario.pop(0)
        else:
            self._pass_time(self._rests_until_s if until_s is None else min(until_s, self._rests_until_s))

    def _next_is(self, name: str) -> bool:
        return bool(self.scenario) and self.scenario[0].name == name

    def _run_step(self, daemon: SimulatedLoop, step: Step) -> None:
        if step.at is not None:
            self._pending.append(step)
            return
        match step.name:
            case "wait_failing":
                pass
            case "wait_idle":
                self._pending.clear()
            case "advance":
                self.checker.note_jump(step.args[0])
                self.clock.go_on(step.args[0])
            case "request_sync":
                daemon.add(SyncRequest())
            case "push_force":
                self.workspace_replaced = False  # a person confirms it
                if self.workspace.is_dir() and not daemon.is_paused:
                    daemon.add(SyncRequest(sync_mode=SyncMode.FORCED))
            case "flush":
                if self.workspace.is_dir() and not daemon.is_paused:
                    check = FlushCheck(self.checker, daemon.publisher, lambda: not daemon.has_nothing_due)
                    daemon.add(SyncRequest(check, lasting=True))
            case "pause" | "resume" as command:
                daemon.daemon.pause_or_resume(command)
            case "limit_watches":
                self._watches_left = step.args[0]
            case "munmap" if self._watches_left is not None:
                self._do(step)
                # What is polled is found by its times. In real time the page has been written back by now.
                self._do(Step("touch", (step.args[0],)))
            case _:
                self._do(step)
        self._read_events()

    def _finish(self, daemon: SimulatedLoop, until_s: float | None) -> None:
        """End all disturbances, and wait until the daemon is idle by itself."""
        self._pending.clear()
        self._at_request.clear()
        self.emulator.faults.clear()
        self.release_executions()
        self.checker.deliver_held()
        self._delayed_waits, self._watches_left = 0, None
        self.operations.unmap_all()
        if daemon.is_paused:
            daemon.daemon.pause_or_resume("resume")
        if not self.workspace.is_dir():
            self._do(Step("move_workspace_back"))
        is_idle = self._is_idle(daemon)
        unreported = self.operations.unreported
        if daemon.is_held and self.nearly_empty and not daemon.is_syncing:
            self.figures["guard confirmations"] += 1
            daemon.add(SyncRequest(sync_mode=SyncMode.FORCED))
        elif self.lasting.name:
            self.lasting.pass_time(daemon, until_s)
        elif is_idle and self._needs_force(daemon):
            self._was_forced = True
            self.figures["forced pushes"] += 1
            daemon.add(SyncRequest(sync_mode=SyncMode.FORCED))
        elif is_idle and not daemon.polls and daemon.is_followed:
            needs_full_scan = self._was_linked or self.checker.has_other_links() or bool(unreported)
            if self._full_scans is None:
                self._full_scans = self.figures["full scans"]
            if until_s is not None and needs_full_scan and self.figures["full scans"] == self._full_scans:
                # Written by an excluded name, a file causes no event: the periodic scan finds it.
                self.clock.go_on(until_s - self.clock.monotonic_s())
                return
            self._deliver_late_executions()
            self._end()
        else:
            self._pass_time(until_s)

    def _needs_force(self, daemon: SimulatedLoop) -> bool:
        """True if it reports that it could not remove or put something, or cannot know that its sandbox has ended."""
        blocked = self.checker.blocked()
        if self.checker.is_plain and blocked and not self._was_forced:
            self.checker.lose(f"{blocked[0]!r} is reported as blocked, and there is no agent")
        tracked = self.checker.current
        has_ended = (
            tracked is not None
            and self.checker.has_ended(tracked)
            and (self._clock_was_set or self.checker.sandbox_id in self._expired_early)
        )
        if self._was_forced:
            return has_ended  # while the daemon rested
        return daemon.warns_of_deletions or has_ended or bool(blocked)

    def _pass_time(self, until_s: float | None) -> None:
        """Let time pass, unless there are events."""
        if not self._read_events() and until_s is not None:
            self.clock.go_on(until_s - self.clock.monotonic_s())

    def _is_idle(self, daemon: SimulatedLoop) -> bool:
        if self._read_events() or self._delayed_waits:
            return False
        is_held = not daemon.is_syncing and daemon.is_held and (self.nearly_empty or not self.workspace.is_dir())
        return daemon.is_idle or daemon.is_paused or is_held

    def _read_events(self) -> bool:
        """Deliver the events, unless they are delayed. True if there were any."""
        inotify = ManualInotify.newest
        if inotify is None:
            return False
        inotify.watches_left = self._watches_left
        has_events = bool(inotify.queued_bytes()) if inotify.is_listening() else False
        if has_events and self._overflows:
            self._overflows = False
            inotify.overflow()
        if not self._delayed_waits:
            inotify.read_events()
        return has_events

    def _end(self) -> None:
        self._ended = True
        self._interrupt.requested = True

    # -- injection points

    @contextlib.contextmanager
    def injection(self, *, enabled: bool) -> Iterator[None]:
        """Count injection points within: enabled for a sync, disabled for all else."""
        before, self._injects = self._injects, enabled
        if enabled:
            self._points = 0
        try:
            yield
        finally:
            self._injects = before

    def injection_point(self) -> None:
        """Run the pending steps that are due, before the daemon's next effect. Raises `Killed`."""
        if not self._injects or self.is_killed:  # a killed process only cleans up
            return
        self._points += 1
        if self._pending:
            due = [step for step in self._pending if step.at is not None and step.at <= self._points]
            self._pending = [step for step in self._pending if step not in due]
            for step in due:
                with self.injection(enabled=False):
                    self._do(step)
                    if step.at and step.at % 2:
                        self._read_events()

    def at_request(self, op: str, when: str) -> None:
        """Run the steps that were to happen before or after this request. Raises `Killed`."""
        for each in [each for each in self._at_request if each[:2] == (op, when)]:
            if self._injects and not self.is_killed:
                self._at_request.remove(each)
                with self.injection(enabled=False):
                    self._do(Step(each[2], each[3:]))

    # -- steps that need no daemon

    def do(self, step: Step) -> None:
        """Run a step of a person, of the agent or of the cloud."""
        with self.injection(enabled=False):
            self._do(step)

    def reload(self) -> None:
        """Have a running daemon read its configuration again."""
        if self._signals is not None:
            self._signals.reload = True

    def _do(self, step: Step) -> None:
        """Run a step. Raises `Killed`."""
        match step.name:
            case "file_times":
                self.coarse_times = step.args[0] == "coarse"
            case "fault":
                self.figures["faults"] += 1
                self.emulator.faults.script(step.args[0])
            case "lasting":
                self.lasting.begin(*step.args)
            case "suspend":
                self.checker.note_jump(step.args[0])
                self.clock.suspend(step.args[0])
            case "set_clock":
                self._clock_was_set = True
                self.checker.note_clock_set()
                self.clock.set_wall(step.args[0])
            case "settings" | "reconfigure":
                self.figures["configured"] += 1
                change = self.settings.change_to if step.name == "reconfigure" else self.settings.start_with
                change(step.args)
                self.reload()
            case "wipe_sandboxes":
                self.checker.wipes_sandboxes = True
            case name if name in WAY_HOME_STEPS:
                self.way_home.do(step)
            case "at_request":
                self._at_request.append(step.args)
            case name if name in AGENT_STEPS or name == "sandbox_expires":
                live = self.checker.live
                if live is not None:
                    self._change_sandbox(live, step)
            case "hold_executions":
                live = self.checker.live
                if live is not None and not live.sandbox.holds:
                    self.checker.wait_for_executions()
                    live.sandbox.hold()
            case "release_executions":
                self.release_executions()
            case "late_executions":
                self._deliver_late_executions()
            case "delay_events":
                self._delayed_waits = step.args[0]
            case "overflow":
                self.figures["events dropped"] += 1
                self._overflows = True
            case "watch_fails":
                self.figures["events dropped"] += 1
                if ManualInotify.newest is not None and ManualInotify.newest.is_listening():
                    ManualInotify.newest.fail()
            case "kill":
                self._kill()
            case "stop":
                self.figures["stops"] += 1
                self._interrupt.requested = True
            case "reload":
                self.figures["stops"] += 1
                self.reload()
            case "damage":
                self._damage(*step.args)
            case "move_workspace_away":
                self.checker.operations += 1
                with contextlib.suppress(OSError):
                    self.workspace.rename(self.folder / "away")
            case "move_workspace_back":
                self.checker.operations += 1
                with contextlib.suppress(OSError):
                    (self.folder / "away").rename(self.workspace)
            case _:
                self._operate(step)

    def _operate(self, step: Step) -> None:
        """Do an operation on the workspace."""
        self.checker.operations += 1
        self.note(f"{step.name}{step.args}")
        if not self.workspace.is_dir():
            return
        self.workspace_replaced |= step.name == "replace_workspace"
        self.clock.before_write()
        with contextlib.suppress(OSError):
            if step.name == "write_ignored":
                self._delayed_waits = 0  # syncd cannot know a rule whose event is delayed for seconds
            getattr(self.operations, step.name)(*step.args)
            if step.name == "hard_link":  # the excluded name may be gone by the end
                self._was_linked = self._was_linked or self.checker.has_other_links()
            self.figures["operations"] += 1
        self.checker.note_operation()

    def _change_sandbox(self, tracked: TrackedSandbox, step: Step) -> None:
        """Change the sandbox, as its agent or its end would."""
        self.note(f"{step.name}{step.args}")
        self.checker.wait_for_executions()
        sandbox = tracked.sandbox
        if step.name == "sandbox_expires":
            if not sandbox.id.startswith(SANDBOX):  # else it is one that `move_sandbox` named
                sandbox.record.expires_at_s = 0.0
                self.checker.ended_early.add(sandbox.id)
                self._expired_early.add(sandbox.id)
                self.figures["sandbox changes"] += 1
            return
        before = tree(sandbox.workspace)
        with contextlib.suppress(OSError):
            getattr(SandboxAgent(sandbox.workspace), step.name)(*step.args)
            self.figures["sandbox changes"] += 1
        after = tree(sandbox.workspace)
        tracked.model.agent_changed(before, after)
        if step.name == "agent_commits":
            tracked.model.tips = tips(sandbox.workspace)
        self.checker.account.agent_changed(before, after, self.clock.boottime_s())

    def release_executions(self) -> None:
        for tracked in self.checker.sandboxes.values():
            if tracked.sandbox.holds:
                tracked.sandbox.start_held()
        self.checker.wait_for_executions()

    def _deliver_late_executions(self) -> None:
        """Send the requests to run a job that were never answered, as if they arrived late."""
        names, self.unanswered_jobs = self.unanswered_jobs, []
        for name in names:
            live = self.checker.live
            if live is None or live.sandbox.execution(name) is not None:
                continue
            self.checker.is_late = True
            try:
                status, _ = self.emulator.api.execute(live.sandbox, "us", name)
            except ApiError as error:
                status = error.status
            self.figures["late executions"] += status == 200
            self.checker.is_late = False
            self.note(f"{name} arrives late: {status}")
            self.checker.wait_for_executions()

    def _kill(self) -> None:
        """Save the daemon's files as they are now, and end the process."""
        self.figures["kills"] += 1
        for name in ("state", "cache"):
            copy = self.folder / "saved" / name
            copy.mkdir(parents=True)
            if (self.folder / name).is_dir():
                shutil.copytree(
                    self.folder / name,
                    copy,
                    symlinks=True,
                    ignore=_sockets,
                    copy_function=_copy_if_there,
                    dirs_exist_ok=True,
                )
            self._saved.append(copy)
        raise Killed

    def _damage(self, where: str, how: str, number: int) -> None:
        """Damage the daemon's files, and forget what only the state recorded."""
        self.figures["damaged files"] += 1
        if where == "state":
            self.release_executions()
            self.unanswered_jobs.clear()
            self.checker.note_state_damage()
        with contextlib.suppress(OSError):
            damage(self.folder / ("cache" if where == "spool" else "state"), where, how, number)

    def note(self, message: str) -> None:
        """Add a line to the log."""
        self.log.append(f"{self.clock.monotonic_s():9.2f}    {message}")


def _copy_if_there(file: str, target: str) -> None:
    """Copy what a thread may have renamed meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(file, target, follow_symlinks=False)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode)]
