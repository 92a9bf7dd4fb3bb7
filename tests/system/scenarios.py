"""Runs a scenario with the real command: its own process, real inotify, `kill -9`, real time.

Steps that need a scripted clock or access to the process are skipped. A step for an injection point of a sync happens
at one of the next request instead: before it, in the middle of its body, or after it.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from syncd.core.text import shown_path
from syncd.emulator.extract import ArchiveRefused
from syncd.model.manifest import is_within
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
from tests.emulator import Emulator, RequestRecord, Sandbox
from tests.fuzz.agent_side import SavedEntries, note_look
from tests.fuzz.damage import damage
from tests.fuzz.generators import generate_syncs
from tests.fuzz.model import SandboxModel, extracted_of, not_deleted, sent_in, shown
from tests.fuzz.operations import AGENT_STEPS, MARKS, Operations, SandboxAgent, Tree, tree
from tests.fuzz.scenario import Scenario, Step
from tests.fuzz.settings import DEFAULTS
from tests.system.command import CLOCK, Running
from tests.system.rig import KEY, Rig, emptied

_MOMENTS = ("before", "mid-body", "after")
POINTS = [(op, when) for op in ("upload-url", "upload", "initialize") for when in _MOMENTS]
MORE_POINTS = [(op, when) for op in ("execution-upload", "execute", "execution-logs", "reset") for when in _MOMENTS]
# Faults that a person must fix, or whose retry takes too long.
TOO_LONG = ("401", "404", "retry-after")
UNUSUAL = frozenset({"settings", "reconfigure"}) | AGENT_STEPS
_SANDBOX_STEPS = AGENT_STEPS | {"sandbox_expires", "hold_executions", "release_executions"}
# Of the three sandboxes allowed in ten minutes, one is the first.
MAX_EXPIRED = 2
SHORT_DELAYS: dict[str, object] = {"sync.debounce_seconds": 0.05, "retry.first_delay_seconds": 0.05}
_POLL_S = 0.01


@dataclass
class TrackedSandbox:
    """One sandbox and its model. Changes by others and by syncd exclude each other by `lock`."""

    sandbox: Sandbox
    model: SandboxModel = field(default_factory=SandboxModel)
    lock: threading.Lock = field(default_factory=threading.Lock)


class ProcessRun:
    """One scenario's processes. Broken promises are in `lost`."""

    def __init__(self, rig: Rig, figures: Counter[str]) -> None:
        self._rig = rig
        self._figures = figures
        self._operations = Operations(rig.workspace, rig.home)
        self._selection = Selection()
        self._pending: list[Step] = []
        self._state_damaged = False
        self.lost: list[str] = []
        self.log: list[str] = []
        self._is_plain = True
        self._wipes_sandboxes = False
        self._looks_fail = False
        self._saved = SavedEntries(str(rig.state_folder), CLOCK)
        self._expired = 0
        self._settings: tuple[Any, ...] = DEFAULTS
        self._sandboxes: dict[str, TrackedSandbox] = {}
        self._configure(self._settings)
        self._track(rig.sandbox)
        rig.emulator.faults.on("acquire", "after", lambda _: self._note_acquire())
        for op, when in [*POINTS, *MORE_POINTS]:
            rig.emulator.faults.on(op, when, self._at_point((op, when)))

    def run(self, scenario: Scenario) -> None:
        """Run all steps, wait until the process is idle, and do so once more with a new process."""
        self._is_plain = not any(step.name in UNUSUAL for step in scenario)
        for step in scenario:
            if self.lost:
                return
            self._run_step(step)
        self._pending.clear()
        self._rig.emulator.faults.clear()
        self._wait_idle(30.0)
        if self.lost:
            return
        # A deletion of a path that the agent has now makes no difference, so its event may not have been read yet.
        self._rig.run("flush", "--timeout", "20")
        if self._daemon.stop() != 0:
            self.lost.append(f"a stop ended with {self._daemon.code}")
        initialized, tracked = self._figures["initialized"], self._current
        self._start()
        self._wait_idle(20.0)
        if self._figures["initialized"] != initialized and not self._state_damaged and self._current is tracked:
            self.lost.append("a new process sent again what the last one had sent")

    @property
    def _daemon(self) -> Running:
        return self._rig.daemons[-1]

    @property
    def _is_stopped(self) -> bool:
        return not self._rig.daemons or self._daemon.code is not None

    def _start(self) -> None:
        self._figures["processes"] += 1
        self._rig.start()

    def _run_step(self, step: Step) -> None:
        self.log.append(str(step))
        if step.at is not None:
            self._pending.append(step)
        elif step.name in ("wait_idle", "wait_failing"):
            self._wait_idle(30.0) if step.name == "wait_idle" else self._wait_failing()
        elif step.name == "fault":
            if not self._is_too_long(step.args[0]):
                self._figures["faults"] += 1
                self._looks_fail |= step.args[0].startswith(("exec", "dump", "download", "any"))
                self._rig.faults(step.args[0])
        else:
            self._do(step)

    def _is_too_long(self, fault: str) -> bool:
        if self._settings[2] and fault.startswith(("acquire", "any")):
            self._expired += 1  # a request without an answer counts too
            if self._expired > MAX_EXPIRED or " x" in fault:
                return True
        return any(word in fault for word in TOO_LONG)

    def _configure(self, settings: tuple[Any, ...]) -> None:
        deletions, archive, ttl_seconds, limit_kib, _, agent_changes = self._settings = settings
        keys = {
            **SHORT_DELAYS,
            "sandbox.deletions": deletions,
            "sandbox.agent_changes": agent_changes,
            "sync.archive": archive,
            "sync.upload_limit_kib_per_second": limit_kib,
        }
        if not ttl_seconds:
            self._rig.configure(keys)
            return
        self._rig.configure({**keys, "sandbox.acquire.ttl_seconds": 7200})
        text = self._rig.config_file.read_text()
        self._rig.config_file.write_text("".join(row for row in text.splitlines(True) if "sandbox.id" not in row))

    def _do(self, step: Step) -> None:
        match step.name:
            case "settings" | "reconfigure":
                for tracked in self._sandboxes.values():
                    with tracked.lock:
                        if (
                            self._settings[0] == "keep" and self._settings[5] == "overwrite"
                        ):  # an initialize without an answer is not recorded
                            tracked.model.forget()
                self._configure(step.args)
                self._figures["configured"] += 1
                if not self._is_stopped and self._is_ready():
                    self._daemon.send(signal.SIGHUP)
            case "wipe_sandboxes":
                self._wipes_sandboxes = True
            case name if name in _SANDBOX_STEPS:
                if self._current is not None:
                    with contextlib.suppress(OSError):
                        self._change_sandbox(self._current, step)
            case "kill" if not self._is_stopped:
                self._figures["kills"] += 1
                self._daemon.kill()
            case "stop" if not self._is_stopped:
                self._figures["stops"] += 1
                self._daemon.send(signal.SIGTERM)
            case "reload" | "request_sync" as name if not self._is_stopped and self._is_ready():
                self._daemon.send(signal.SIGHUP if name == "reload" else signal.SIGUSR1)
            case "damage":
                if step.args[0] == "state":
                    self._state_damaged = True
                    self._expired = MAX_EXPIRED  # syncd may not know what it acquired
                    for tracked in self._sandboxes.values():
                        tracked.model.forget()
                self._figures["damaged files"] += 1
                where, how, number = step.args
                top = self._rig.home / (".cache" if where == "spool" else ".local/state")
                if how not in ("foreign", "folder"):
                    with contextlib.suppress(OSError):
                        damage(top, where, how, number)
            case "hard_link":
                pass  # written by an excluded name, a file causes no event, and the next full scan is minutes away
            case "write_ignored":
                pass  # the order of a rule and a scan is known in scripted time only
            case name if hasattr(Operations, name):
                with contextlib.suppress(OSError):
                    getattr(self._operations, name)(*step.args)
                    self._figures["operations"] += 1

    def _change_sandbox(self, tracked: TrackedSandbox, step: Step) -> None:
        """Change the sandbox, as its agent or its end would."""
        with tracked.lock:
            if step.name in AGENT_STEPS and not tracked.sandbox.holds:
                tracked.sandbox.wait()
            match step.name:
                case name if name in AGENT_STEPS:
                    before = tree(tracked.sandbox.workspace)
                    with contextlib.suppress(OSError):
                        getattr(SandboxAgent(tracked.sandbox.workspace), name)(*step.args)
                    tracked.model.agent_changed(before, tree(tracked.sandbox.workspace))
                case "sandbox_expires" if tracked.sandbox is not self._rig.sandbox and self._expired < MAX_EXPIRED:
                    self._expired += 1
                    tracked.sandbox.record.expires_at_s = 0.0
                case "hold_executions" if not tracked.sandbox.holds:
                    tracked.sandbox.wait()
                    tracked.sandbox.hold()
                case "release_executions" if tracked.sandbox.holds:
                    tracked.sandbox.start_held()
        self._figures["sandbox changes"] += 1

    @property
    def _current(self) -> TrackedSandbox | None:
        """The sandbox that the process reports to sync to."""
        return self._sandboxes.get(str(self._rig.shown().get("sandbox", {}).get("id", self._rig.sandbox.id)))

    @property
    def _has_ended(self) -> bool:
        tracked = self._current  # read once: the process may report another at any time
        return tracked is None or self._rig.emulator.sandbox(tracked.sandbox.id) is None

    def _is_synced(self) -> bool:
        """True if the process reports that it has nothing to do."""
        shown = self._rig.shown()
        return self._is_ready() and shown["state"] == "watching" and not shown["pending"]

    def _is_ready(self) -> bool:
        """True if its signal handlers are installed: an earlier signal ends any process."""
        return self._rig.shown().get("pid") == self._daemon.pid

    def _at_point(self, point: tuple[str, str]) -> Callable[[RequestRecord], None]:
        def hook(_: RequestRecord) -> None:
            points = POINTS if self._is_plain else [*POINTS, *MORE_POINTS]
            due = [step for step in self._pending if step.at is not None and points[step.at % len(points)] == point]
            for step in due:
                self._pending.remove(step)
                self.log.append(f"  at {' '.join(point)}: {step}")
                self._do(step)

        return hook

    def _wait_idle(self, timeout_s: float) -> None:
        """Wait until both sides are equal, and start processes that are missing."""
        for tracked in self._sandboxes.values():
            if tracked.sandbox.holds:
                tracked.sandbox.start_held()

        def equal() -> bool:
            if self._is_stopped:
                self._start()
            elif self._has_ended and self._is_synced():  # it makes no request that would report the end
                self._figures["forced pushes"] += 1
                self._rig.run("push", "--force")
            elif self._rig.shown()["state"] == "held" and self._rig.shown().get("pid") == self._daemon.pid:
                self._figures["guard confirmations"] += 1
                self._rig.run("push", "--force")
            if self._operations.unreported and self._is_synced():  # there was no event of it
                self._operations.unreported.clear()
                self._rig.run("flush", "--timeout", "20")
            return not self._differences() and self._is_synced()

        if not self._until(equal, timeout_s):
            self.lost += self._differences() or [f"the process does not become idle: {self._rig.shown()}"]
        self._pending.clear()

    def _wait_failing(self) -> None:
        """Wait until the process waits to retry, or for half a second."""
        if self._is_stopped:
            self._start()
        self._until(lambda: self._is_stopped or self._rig.shown()["state"] == "retrying", 0.5)

    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = CLOCK.monotonic_s() + timeout_s
        while not condition():
            if CLOCK.monotonic_s() > deadline_s:
                return False
            CLOCK.sleep(_POLL_S)
        return True

    def _differences(self) -> list[str]:
        try:
            return self._found_different()
        except FileNotFoundError:
            return ["the sandbox, or something here, disappeared during the comparison"]

    def _found_different(self) -> list[str]:
        scanner = Scanner(str(self._rig.workspace), self._selection)
        included = scanner.scan().manifest
        wanted: Tree = {path: entry for path, entry in tree(self._rig.workspace).items() if path in included}
        tracked = self._current
        if tracked is None or self._has_ended:
            return ["there is no sandbox"]
        with tracked.lock:
            if tracked.sandbox.holds:
                tracked.sandbox.start_held()
            tracked.sandbox.wait()
            remote = tree(tracked.sandbox.workspace)
            if not self._is_plain or self._state_damaged:
                blocked = self._blocked(wanted)
                free = {path: entry for path, entry in wanted.items() if not is_within(path, blocked)}
                lost = [*tracked.model.missing(free, remote), *tracked.model.lost_agent_files(remote)]
                if self._settings[0] != "keep":
                    remote = {path: entry for path, entry in remote.items() if not is_within(path, blocked)}
                    left_over = tracked.model.left_over(free, remote, exactly=False)
                    # A new rule alone causes no reset.
                    are_excluded = all(scanner.is_excluded(path, remote[path][0] == "folder") for path in left_over)
                    if self._settings[0] != "reset" or not are_excluded:
                        lost += not_deleted(left_over, remote)
                return lost
        return [
            f"{path!r} is {wanted.get(path)!r:.50} locally and {remote.get(path)!r:.50} in the sandbox"
            for path in sorted({*wanted, *remote})
            if wanted.get(path) != remote.get(path)
        ]

    def _blocked(self, wanted: Tree) -> set[str]:
        """Return the paths that the process reports as blocked: these and all below stay as they are."""
        warnings = self._rig.shown()["warnings"]
        warning_of = {path: f"{shown_path(path)!r} is not sent: in the sandbox " for path in wanted}
        return {path for path in wanted if any(warning.startswith(warning_of[path]) for warning in warnings)}

    def _track(self, sandbox: Sandbox) -> None:
        """Note each archive that is unpacked there and each reset, and look for the marks in each archive."""
        tracked = self._sandboxes[sandbox.id] = TrackedSandbox(sandbox)
        initialize, reset, execute = sandbox.initialize, sandbox.reset, sandbox.execute

        def tracked_initialize(packed: BinaryIO) -> None:
            start = packed.tell()
            tar = zlib.decompress(packed.read(), 31)
            packed.seek(start)
            self.lost += [f"{mark.decode()} was uploaded" for mark in MARKS if mark in tar]
            with tracked.lock:
                if self._wipes_sandboxes:  # each archive must hold everything
                    emptied(sandbox.workspace)
                    tracked.model.cleared()
                self._account(tracked, "removed")
                try:
                    initialize(packed)
                except ArchiveRefused as error:
                    if self._is_plain or "could not be extracted" not in str(error):
                        self.lost.append(f"an archive cannot be extracted: {error}")
                    self._account(tracked, "overwritten")
                    remote = tree(sandbox.workspace)
                    tracked.model.extracted(extracted_of(sent_in(tar), remote), remote)
                    raise
                self._account(tracked, "overwritten")
                tracked.model.extracted(sent_in(tar), tree(sandbox.workspace))
            for other in self._sandboxes.values():
                if other is not tracked:
                    other.model.forget()  # syncd's records are of one sandbox only
            self._figures["initialized"] += 1

        def tracked_reset() -> None:
            self._figures["resets"] += 1
            with tracked.lock:
                reset()
                tracked.model.cleared()

        def locked_execute(name: str, packed: BinaryIO, *more: Any) -> None:
            self._figures["executions"] += 1
            with tracked.lock:
                note_look(tracked.model, packed)
                execute(name, packed, *more)

        sandbox.initialize = tracked_initialize  # type: ignore[method-assign, assignment]
        sandbox.reset = tracked_reset  # type: ignore[method-assign]
        sandbox.execute = locked_execute  # type: ignore[method-assign, assignment]

    def _account(self, tracked: TrackedSandbox, what: str) -> None:
        """Check that the agent's versions that are gone now were saved, if a look could show them."""
        gone = tracked.model.gone(tree(tracked.sandbox.workspace))
        for path, (entry, seen) in gone.items():
            self._figures[f"versions {what}"] += 1
            if self._settings[5] == "overwrite" or self._state_damaged or self._saved.holds(path, entry):
                continue
            if what == "removed" or (seen and not self._looks_fail):
                self.lost.append(f"the agent's {path!r} ({shown(entry)}) was {what}, and is not saved")
        tracked.model.removed(gone)

    def _note_acquire(self) -> None:
        """Track a sandbox that the request acquired."""
        for sandbox in self._rig.emulator.sandboxes():
            if sandbox.id not in self._sandboxes:
                self._figures["acquired"] += 1
                self._track(sandbox)


def describe(process_run: ProcessRun, rig: Rig) -> str:
    """Return the log of a failed scenario, and what was lost."""
    return "\n".join([*process_run.log, "", *process_run.lost[:5], "", rig.report()])


def run_seed_by_processes(asked: tuple[str, int]) -> tuple[Counter[str], list[str], str]:
    """Run this seed's scenario below that folder; return figures, a report of what was lost, and no course."""
    place, seed = asked
    figures: Counter[str] = Counter(scenarios=1)
    with tempfile.TemporaryDirectory(dir=place, prefix="processes-") as name:
        with Emulator(Path(name) / "emulator", api_key=KEY) as emulator:
            rig = Rig(Path(name), emulator)
            process_run = ProcessRun(rig, figures)
            try:
                process_run.run(generate_syncs(seed))
            finally:
                rig.close()
            lost = [*process_run.lost, *rig.leaks()]
        if not lost:
            return figures, [], ""
        figures["losses"] += 1
        return figures, [f"seed {seed}, with --processes:\n{describe(process_run, rig)}"], ""
