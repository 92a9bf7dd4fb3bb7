"""A daemon that lives through a story in this process: the real loop, watch, files and requests, in scripted time.

What is not real: time, which passes where the loop would wait; the watch's thread, whose reading is done at moments
that the story may move; and `kill -9`, which is an exception, after which state and spool are put back to what they
were at that instant. File times are taken for what the scripted clock showed; `stamps('coarse')` keeps every other
second of them, as FAT does. An audit hook (PEP 578) sees each effect of the loop's thread coming, and there the story
goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import stat
import struct
import sys
import tempfile
import termios
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import httpx
import pytest
from watchdog.observers.inotify_c import InotifyConstants as In

from syncd.archive import chunking, packer
from syncd.archive.snapshotter import SyncMode
from syncd.core.api_key import ApiKey
from syncd.core.clock import SystemClock
from syncd.core.errors import NearlyEmpty, NeedsPerson, SyncdError
from syncd.core.interrupt import Interrupt
from syncd.core.settings import Config, check_config
from syncd.core.waiter import Superseded
from syncd.daemon import build
from syncd.daemon.build import RuntimeContext, folders_of
from syncd.daemon.loop import Components, Daemon
from syncd.daemon.requests import SyncRequest
from syncd.daemon.signals import Signals
from syncd.daemon.wakeup import Wakeup
from syncd.emulator import Emulator, RequestRecord, Sandbox
from syncd.emulator.extract import ArchiveRefused, Bounds
from syncd.remote.acquired_sandbox import MOST_ACQUIRED, SPAN_S
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.http_client import HttpClient, Response
from syncd.remote.remote_job import JobRunner, RemoteJob
from syncd.report.status_publisher import RunTotals
from syncd.report.sync_failure import SyncFailure
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sandbox.removal_plan import within
from syncd.scan import file_reader
from syncd.scan.exclusions import OUTSIDE
from syncd.scan.manifest import Kind, Manifest, Stamp
from syncd.scan.mass_deletion import LEFT_ONE_IN, SMALL_FILES
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Decision, Selection, SelectionSettings
from syncd.sync import sandbox_factory
from syncd.sync.delivery import SyncObserver
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import Outcome, SyncCycle
from syncd.watch import inotify_watch as watch_module
from syncd.watch.inotify import BUFFER_BYTES, Inotify
from tests.clock import NOON_S, ScriptedClock
from tests.fuzz.model import Ledger, gone_here, kinds_in, put_by, shown
from tests.fuzz.operations import ELSEWHERE, MARKS, Agent, Hand, Tree, leads_in_a_circle, tree
from tests.fuzz.scenario import Line, Story, shortened, story, told

KEY = "sk-key-of+the/story="
MACHINE = SystemClock()
# To be parsed once, as every story has the same settings.
SELECTION = Selection(SelectionSettings())
# As the line `settings` gives them: deletions, archive, a lifetime or 0 for the named sandbox, the limit of uploads in
# KiB a second, the quiet time, and whether changes in the sandbox are looked for.
DEFAULTS = ("keep", "full", 0, 0, 1.0, False)
UNUSUAL = frozenset({"settings", "reconfigure", "agent_writes", "agent_removes"})
# A daemon that has waited so often and is not at rest never will be.
WAITS_AT_MOST = 400
# The clock of file times; it ticks a few hundred times a second.
_FILE_CLOCK = 5  # CLOCK_REALTIME_COARSE (clock_gettime(2))
EFFECTS = frozenset({"open", "os.rename", "os.remove", "os.scandir", "os.listdir", "os.mkdir", "os.rmdir"})
_FOUR = struct.Struct("i")
# Lines that need a daemon which receives them.
OF_DAEMONS = frozenset(
    {
        "rest",
        "failing",
        "tick",
        "asleep",
        "order",
        "flush",
        "pause",
        "resume",
        "limit",
        "kill",
        "stop",
        "reload",
        "overflow",
        "deaf",
        "late",
    }
)


class Killed(BaseException):
    """The process is no more."""


class StoryClock(ScriptedClock):
    """Scripted; file times, which are the machine's, are taken for what this clock showed when they were given.

    The machine's own time passes a thousand times as slowly here, and each story begins as a grain of coarse file times
    does: so how a story ends does not depend on the machine's pace, nor on when it was begun.
    """

    SLOWER = 1000
    BEGINS_NS = int(NOON_S + 5001) * 1_000_000_000

    def __init__(self) -> None:
        super().__init__()
        self._begun_ns = time.clock_gettime_ns(_FILE_CLOCK)
        self._ahead_ns = 0
        self._written_ns = 0
        self._turned: list[tuple[int, int]] = []

    def wall_s(self) -> float:
        return self._shown_ns(int(MACHINE.wall_s() * 1e9), self._ahead_ns) / 1e9

    def suspend(self, seconds: float) -> None:
        super().suspend(seconds)
        self.set_wall(seconds)

    def set_wall(self, seconds: float) -> None:
        """Somebody sets the clock, or it simply goes on."""
        turned_ns = time.clock_gettime_ns(_FILE_CLOCK)
        while self._written_ns and turned_ns <= self._written_ns:
            turned_ns = time.clock_gettime_ns(_FILE_CLOCK)
        self._written_ns = 0
        self._turned.append((turned_ns, self._ahead_ns))
        self._ahead_ns += int(seconds * 1e9)

    def note_write(self) -> None:
        """What was written up to now is not to be taken for younger than the clock's next turn."""
        self._written_ns = time.clock_gettime_ns(_FILE_CLOCK)

    def wall_at_ns(self, file_ns: int) -> int:
        """What this clock showed at that time of a file; one from before the story is what it is."""
        if file_ns < self._begun_ns:
            return file_ns
        ahead_ns = self._ahead_ns
        for until_ns, before_ns in reversed(self._turned):
            if file_ns >= until_ns:
                break
            ahead_ns = before_ns
        return self._shown_ns(file_ns, ahead_ns)

    def _shown_ns(self, machine_ns: int, ahead_ns: int) -> int:
        return self.BEGINS_NS + (machine_ns - self._begun_ns) // self.SLOWER + ahead_ns


class HandRead(Inotify):
    """The real thing without its thread: `pump` reads what has come."""

    newest: HandRead | None = None

    def __init__(self, deliver: Callable[..., None], lost: Callable[[], None]) -> None:
        super().__init__(deliver, lost)
        self.left: int | None = HandRead.newest.left if HandRead.newest else None
        self.dead = self.gone = False
        HandRead.newest = self

    def start(self) -> None:
        """No thread."""

    def shut_down(self) -> None:
        """Not waited for: the kernel takes ten milliseconds to let go of watches."""
        if not self.gone:
            self.gone = True
            threading.Thread(target=super().shut_down).start()

    def is_listening(self) -> bool:
        return not self.gone and not self.dead and not self._closed

    def add(self, path: bytes, mask: int) -> int:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device", path)
        return super().add(path, mask)

    def waiting(self) -> int:
        """Bytes of events that nobody has read."""
        return int(_FOUR.unpack(fcntl.ioctl(self._inotify_fd, termios.FIONREAD, bytes(4)))[0])

    def pump(self) -> None:
        while self.is_listening() and self.waiting():
            self._deliver(self._parse_event_buffer(os.read(self._inotify_fd, BUFFER_BYTES)))

    def overflow(self) -> None:
        """The kernel dropped what came."""
        while self.is_listening() and self.waiting():
            os.read(self._inotify_fd, BUFFER_BYTES)
        self._deliver([(-1, In.IN_Q_OVERFLOW, 0, b"")])

    def die(self) -> None:
        self.dead = True
        self._on_death()


class Waiter:
    """Who waits for a flush; what was there when it was asked for."""

    waits = True

    def __init__(self, world: World) -> None:
        self._world = world
        self._deeds = world.deeds
        self._wanted = world.wanted()

    def send(self, message: dict[str, Any]) -> None:
        """Progress."""

    def done(self, exit_code: int, message: str = "", **more: Any) -> None:
        """The command's end: what it promised must be true, as far as nothing was done since."""
        if exit_code == 0:
            self._world.figures["flushes kept"] += 1
            box = self._world.box
            if self._deeds == self._world.deeds and box is not None and not box.gone:
                lacking = box.ledger.lacking(self._wanted, tree(box.sandbox.workspace))
                if lacking:
                    self._world.lose(f"flush said that all is there, and {lacking[:4]}")


class Knocking(HttpClient):
    """The real exchanger, with an instant before and after each request."""

    def exchange(self, method: str, url: str, **more: Any) -> Response:
        world = living()
        path = url.partition("?")[0]
        op = path.rpartition("/")[2]
        world.instant()
        world.meets(op, "before")
        answer = super().exchange(method, url, **more)
        world.meets(op, "after")
        if answer.status == 404 and path.endswith(("/upload-url", "/initialize", "/reset")):
            world.hear_that_it_is_gone()
        if path.endswith("/initialize") and answer.status == 200:
            with contextlib.suppress(ValueError, KeyError):
                said = json.loads(answer.body)
                world.boxes[said["sandbox_id"]].sure = said["status"] != "error"
        world.instant()
        return answer

    def download(self, url: str, *, consume: Callable[[Iterator[bytes]], Any], **more: Any) -> Any:
        world = living()

        def taken(blocks: Iterator[bytes]) -> Any:
            world.meets("download", "before")
            return consume(_with_instants(blocks))

        world.instant()
        answer = super().download(url, consume=taken, **more)
        world.meets("download", "after")
        world.instant()
        return answer


def _with_instants(blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        living().instant()
        yield block


class Asking(JobRunner):
    """The real runner; which of its requests to run something might arrive late is remembered."""

    def start(self, job: RemoteJob) -> None:
        living().figures["programs"] += 1
        try:
            super().start(job)
        except StepFailed as failure:
            if failure.action is not FailureAction.REFUSED:
                living().stragglers.append(job.name)
            raise


class Instants(SystemdNotifier):
    """The real one, pinged between any two steps of a scan or of packing."""

    def ping(self) -> None:
        living().instant()


class Watchful(SyncCycle):
    """The real cycle, in which an error that nobody foresaw is seen."""

    def run(self, sync_mode: SyncMode, observer: SyncObserver, changed: Any = None) -> Outcome:
        figures = living().figures
        figures["looks at all" if changed is None else "looks at some"] += 1
        world = living()
        baseline, sandbox_id = self.baseline, self.target.sandbox_id if self.target else ""
        try:
            outcome = super().run(sync_mode, observer, changed)
        except (SyncdError, StepFailed, Superseded, OSError):
            figures["failed syncs"] += 1
            raise
        except Exception as error:
            world.lose(f"internal error: {''.join(traceback.format_exception(error))}")
            raise
        same = self.target is not None and self.target.sandbox_id == sandbox_id  # else there was nothing to lose
        if world.renewed and sync_mode is SyncMode.CHANGED and baseline and same and not world.state_harmed:
            world.judge_renewed(baseline)
        world.renewed = False
        return outcome


class StoryDaemon(Daemon):
    """The real daemon, whose waits are the story's."""

    def __init__(self, components: Components) -> None:
        super().__init__(components)
        self._world = living()
        self._syncing = False

    def _wait(self, until_s: float | None) -> None:
        with self._world.effects(counted=False):
            self._world.waits(self, until_s)
        self._components.waiter.interrupt.check()
        self._receive()

    def _sync(self, reason: Any) -> None:
        self._syncing = True
        self._world.note_sync()
        with self._world.effects(counted=True):
            super()._sync(reason)
        self._syncing = False

    def stage(self, state: State) -> None:
        self._world.instant()
        super().stage(state)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        self._world.instant()
        super().sent(sent_bytes, total_bytes)
        self._receive()

    def _succeeded(self, outcome: Outcome) -> None:
        self._world.box_id = self.sandbox_id
        super()._succeeded(outcome)

    def _failed(self, failed: SyncFailure) -> None:
        self._world.nearly_empty = isinstance(failed.error, NearlyEmpty)
        super()._failed(failed)

    @property
    def at_rest(self) -> bool:
        scheduler_input = self._scheduler_input()
        return (
            not self._syncing
            and scheduler_input.burst is None
            and not scheduler_input.requested
            and scheduler_input.hold is None
            and scheduler_input.not_before_s is None
        )

    @property
    def fails(self) -> bool:
        """Whether a failure is being waited out."""
        return self._syncing or self._backoff.not_before_s is not None

    @property
    def held(self) -> bool:
        return self._backoff.hold is not None

    @property
    def sandbox_id(self) -> str:
        """Where it goes, or went last."""
        target = self._components.cycle.target
        return target.sandbox_id if target else ""

    @property
    def owns_up(self) -> bool:
        """Whether it says that something could not be removed."""
        return any(warning.key.startswith("delete") for warning in self._components.cycle.warnings)

    def order(self, order: SyncRequest) -> None:
        self._request_queue.add(order)

    @property
    def paused(self) -> bool:
        return self._paused

    def pause_or_resume(self, word: str) -> None:
        self._pause_or_resume(Mute(), word)  # type: ignore[arg-type]

    @property
    def polls(self) -> bool:
        """Whether it must look where it cannot hear."""
        return self._components.watch.needs_polling

    @property
    def last_error(self) -> object:
        return self._components.publisher.totals.last_error


class Mute:
    """A command that nobody waits for."""

    def send(self, message: Any) -> None: ...

    def done(self, *_: Any, **__: Any) -> None: ...


@dataclass
class ServerClock(SystemClock):
    """The cloud's clock, which nobody sets: it goes by the laptop's boottime."""

    cloud: Cloud

    def monotonic_s(self) -> float:
        return self.cloud.clock.boottime_s()

    def wall_s(self) -> float:
        return NOON_S + self.cloud.clock.boottime_s()


class Cloud:
    """One emulator for many stories; each has a sandbox of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = StoryClock()
        self.emulator = Emulator(folder, api_key=KEY, clock=ServerClock(self))
        self.used = 0
        faults = self.emulator.faults
        faults.on("acquire", "after", lambda _: living().welcome())
        faults.on("initialize", "before", lambda entry: living().is_asked(entry))
        faults.on("upload", "before", lambda _: living().forget_resets())
        for op in ("execution-logs", "execution-status"):
            # The program runs in the machine's time: in the story's, it has ended by then, unless it is held.
            faults.on(op, "before", lambda _: living().see_programs_end())

    def __enter__(self) -> Self:
        self.emulator.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.emulator.close()


@dataclass
class Box:
    """One sandbox. `names` are those of its last archive; `whole`: that was to hold everything."""

    sandbox: Sandbox
    ledger: Ledger = field(default_factory=Ledger)
    names: set[str] = field(default_factory=set)
    whole: bool = False
    unrecorded: set[str] = field(default_factory=set)  # put there, and not noted by syncd as there
    sure: bool = False  # syncd heard what its last initialize came to
    ever: set[tuple[str, str]] = field(default_factory=set)  # all that an initialize was to put there since a reset
    reset_of: set[tuple[str, str]] = field(default_factory=set)  # taken away by a reset, and nobody knows why yet

    @property
    def gone(self) -> bool:
        """Whether the API knows it no more."""
        return living().emulator.sandbox(self.sandbox.id) is None


class World:
    """One story's workspace, folders, sandbox, and the daemons that come and go."""

    def __init__(self, cloud: Cloud, folder: Path, story: Sequence[Line], figures: Counter[str]) -> None:
        cloud.used += 1
        cloud.clock = StoryClock()
        self.figures = figures
        self.emulator = cloud.emulator
        self.clock = cloud.clock
        self.named = f"box{cloud.used}"
        self.boxes: dict[str, Box] = {}
        self.box_id = self.named
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir(parents=True)
        self.hand = Hand(self.workspace, folder)
        self.story: Story = list(story)
        self.lost: list[str] = []
        self.log: list[str] = []
        self.deeds = self._deeds_before_sync = 0
        self.nearly_empty = False
        self.state_harmed = False
        self.coarse = False
        self.active = False
        self.stragglers: list[str] = []
        self._environ = {"XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder / "cache")}
        # With the defaults and with nobody else in the sandbox, more can be asked: see `_watch`.
        self._cycle: SyncCycle | None = None
        self._plain = not any(line.word in UNUSUAL for line in self.story)
        self._settings: list[tuple[Any, ...]] = [DEFAULTS]
        self._config = self._lived = self._configured(DEFAULTS)
        self._folders = folders_of(self._config, self._environ)
        self._forgetful = False
        self._acquired_wall_s: list[float] = []
        self._ended_by_hand: set[str] = set()
        self._clock_was_set = self._was_forced = False
        self._coming: list[Line] = []  # at instants of the next sync
        self._meetings: list[tuple[Any, ...]] = []  # what happens at a request, as the line `meets` gives it
        self.renewed = False  # the workspace is another one, and nobody has said that it is meant so
        self._instants = 0
        self._late = 0
        self._overflows = False
        self._waits = 0
        self._watches: int | None = None
        self._ended = False
        self._looked = False
        self._saved: list[Path] = []
        self._signals: Signals | None = None
        self._interrupt = Interrupt()
        self._adopt(self.emulator.create_sandbox(self.named))

    def _configured(self, settings: tuple[Any, ...]) -> Config:
        deletions, archive, ttl_seconds, limit_kib, quiet_s, warns = settings
        sandbox: dict[str, Any] = {"base_url": self.emulator.base_url, "deletions": deletions}
        sandbox |= {"acquire": {"ttl_seconds": ttl_seconds}} if ttl_seconds else {"id": self.named}
        return check_config(
            {
                "workspace": {"path": str(self.workspace)},
                "sandbox": {**sandbox, "warn_on_remote_changes": warns},
                "sync": {
                    "archive": archive,
                    "upload_limit_kib_per_second": limit_kib,
                    "debounce_seconds": quiet_s,
                },
                "retry": {"first_delay_seconds": 1, "max_delay_seconds": 8, "give_up_after_seconds": 60},
            }
        )

    @property
    def box(self) -> Box | None:
        """The sandbox that the daemon goes to."""
        return self.boxes.get(self.box_id)

    # -- what must hold

    def lose(self, what: str) -> None:
        """A promise was broken."""
        self.lost.append(what)

    def _adopt(self, sandbox: Sandbox) -> None:
        """Each archive that is unpacked there, and each reset, is written down, and nothing marked is ever in one."""
        box = self.boxes[sandbox.id] = Box(sandbox)
        initialize, reset = sandbox.initialize, sandbox.reset

        def watched(packed: BinaryIO, bounds: Bounds) -> int:
            start = packed.tell()
            tar = zlib.decompress(packed.read(), 31)
            packed.seek(start)
            for mark in MARKS:
                if mark in tar:
                    self.lose(f"{mark.decode()} left the laptop")
            if self._plain or self._forgetful:  # so that each archive has to hold everything
                for item in os.scandir(sandbox.workspace):
                    _remove(Path(item.path))
                box.ledger.emptied()
            kinds = kinds_in(tar)
            try:
                count = initialize(packed, bounds)
            except ArchiveRefused as error:
                if self._plain or "could not be extracted" not in str(error):
                    self.lose(f"an archive that cannot be extracted: {error}")
                there = tree(sandbox.workspace)  # what could be put there is
                box.ledger.put(put_by(kinds, there), there)
                raise
            box.ledger.put(kinds, tree(sandbox.workspace))
            box.unrecorded |= kinds.keys()
            box.names, box.whole = set(kinds), self._lived.sync.archive == "full"
            for other in self.boxes.values():
                if other is not box:
                    other.ledger.forgive()  # the records are of one sandbox only
            self.figures["initialized"] += 1
            self.figures["in part"] += not box.ledger.ours.keys() <= box.names and not box.whole
            return count

        def watched_reset() -> None:
            self.figures["resets"] += 1
            if box.sure:
                box.reset_of = box.ever
            reset()
            box.ledger.emptied()
            box.ever = set()

        sandbox.initialize = watched  # type: ignore[method-assign]
        sandbox.reset = watched_reset  # type: ignore[method-assign]

    def welcome(self) -> None:
        """A sandbox may have been acquired."""
        for sandbox in self.emulator.sandboxes():
            if sandbox.id in self.boxes:
                continue
            self._adopt(sandbox)
            self.figures["acquired"] += 1
            now_s = self.clock.wall_s()
            self._acquired_wall_s.append(now_s)
            if sum(now_s - at_s < SPAN_S - 1 for at_s in self._acquired_wall_s) > MOST_ACQUIRED:
                self.lose(f"more than {MOST_ACQUIRED} sandboxes were acquired in {SPAN_S:.0f} s")

    def is_asked(self, entry: RequestRecord) -> None:
        """An initialize is asked for; whoever reset the sandbox for it had a reason."""
        box = self.boxes[entry.sandbox or ""]
        box.sure = False
        reset_of, box.reset_of = box.reset_of, set()
        place = self.emulator.data_dir / "bucket/us" / box.sandbox.id / "workspace.tar.gz"
        with contextlib.suppress(OSError, ValueError, zlib.error):
            newest = max(place.iterdir(), key=lambda path: path.name)
            kinds = kinds_in(zlib.decompress(newest.read_bytes(), 31))
            gone = reset_of - kinds.items()
            if self.deeds == self._deeds_before_sync:  # a rule may have come since what it names was seen to be gone
                home, wanted = self._is_excluded(), self.wanted()
                # What is of another kind now is a reason, also where it is not in the archive, as its place was taken.
                gone = {(path, kind) for path, kind in gone if path in wanted or not home(path, kind == "folder")}
            if reset_of and not gone and not self.state_harmed:
                self.lose("the sandbox was reset, and nothing was deleted")
            box.ever |= kinds.items()

    def hear_that_it_is_gone(self) -> None:
        """The API says so. Where that is not true, what lingered from before the last archive is forgotten."""
        for box in self.boxes.values():
            box.ledger.forgive(box.ledger.ours.keys() - box.names)

    def forget_resets(self) -> None:
        """What follows may be another archive than the one that they were for."""
        for box in self.boxes.values():
            box.reset_of = set()

    def see_programs_end(self) -> None:
        """But for those that are held."""
        for box in list(self.boxes.values()):
            if not box.sandbox.holds:
                box.sandbox.wait()

    def wanted(self) -> Tree:
        """What must be in the sandbox, by a look of someone who knows nothing."""
        circles = set()

        def note(path: str, is_dir: bool, decision: Decision) -> None:
            if decision is OUTSIDE and leads_in_a_circle(self.workspace, path):
                circles.add(path)

        included = Scanner(str(self.workspace), SELECTION, on_left_out=note).scan().manifest.keys() | circles
        return {path: what for path, what in tree(self.workspace).items() if path in included}

    def _is_excluded(self) -> Callable[[str, bool], bool]:
        """Says of a path, and whether it is a folder, that it is not deleted but left out."""
        scanner = Scanner(str(self.workspace), SELECTION)
        scanner.scan()
        return scanner.is_excluded

    def _compare(self) -> None:
        box = self.box
        if box is None or box.gone:
            self.lose(f"the sandbox {self.box_id} is gone")
            return
        self.see_programs_end()
        everything, there = self.wanted(), tree(box.sandbox.workspace)
        wanted = self._unblocked(everything)
        for path in self.blocked():
            if path in everything and box.ledger.makes_way(path, everything[path], there):
                self.lose(f"{path!r} is said to be blocked, and nobody else has its place")
        lost = [*box.ledger.lacking(wanted, there), *box.ledger.robbed(there)]
        if self._plain:
            lost += [f"{path!r} is not here and {shown(there[path])} there" for path in there.keys() - wanted.keys()]
        modes = {settings[0] for settings in self._settings}
        if self._config.sandbox.deletions != "keep":
            left = box.ledger.left(wanted, self._unblocked(there), exactly=modes == {"reset"})
            home = self._is_excluded()
            # For a new rule alone nobody's work is reset.
            if self._config.sandbox.deletions != "reset" or not all(home(p, there[p][0] == "folder") for p in left):
                lost += gone_here(left, there)
        if modes == {"keep"}:
            lost += box.ledger.taken({**there, **{p: w for p, w in box.ledger.ours.items() if self._is_blocked(p)}})
        if box.whole:
            lost += [f"{path!r} was in no archive" for path in wanted.keys() - box.names]
        for what in lost:
            self.lose(what)

    def blocked(self) -> tuple[str, ...]:
        """What the last daemon named as blocked: that, and what is below it, stays as it is there."""
        warnings = self._cycle.warnings if self._cycle is not None else []
        return tuple(each.key.removeprefix("blocked:") for each in warnings if each.key.startswith("blocked:"))

    def _is_blocked(self, path: str) -> bool:
        return within(path, set(self.blocked()))

    def _unblocked(self, paths: Tree) -> Tree:
        return {path: what for path, what in paths.items() if not self._is_blocked(path)}

    # -- lives

    def live(self) -> None:
        """From the first line to the last, then to rest, and once more with a new daemon. See `lost` for what was."""
        while not self._ended:
            self._between_lives()
            self._life()
        if self.lost:
            return
        self._compare()
        initialized, box_id = self.figures["initialized"], self.box_id
        self._ended = False
        self._life()
        sent_again = self.figures["initialized"] != initialized and self.box_id == box_id
        if not self.lost and not self.state_harmed and sent_again:
            self.lose("a new daemon sent again what the last one had sent")
        self._compare()

    def _between_lives(self) -> None:
        """What is done while no daemon runs: all up to the first line that needs one."""
        self._coming.clear()
        while self.story and self.story[0].at is None and self.story[0].word not in OF_DAEMONS:
            self._do(self.story.pop(0))

    def _life(self) -> None:
        """One process."""
        self.figures["daemons"] += 1
        self._interrupt = Interrupt()
        self._waits = self._late = 0
        with contextlib.suppress(Killed, NeedsPerson), self._daemon() as daemon:
            self._cycle = daemon._components.cycle
            daemon.run()
        for copy in self._saved:  # what the doomed process still did to its own disk is undone
            _remove(self.folder / copy.name)
            copy.rename(self.folder / copy.name)
        self._saved.clear()
        self._recorded()

    def _recorded(self) -> None:
        """What the next process cannot know: what came unanswered, where nothing was to be removed."""
        keys = self._lived.sandbox
        for box in self.boxes.values():
            if (Path(self._folders.state) / "unsure").exists():
                if keys.deletions == "keep" and not keys.warn_on_remote_changes:
                    box.ledger.forgive(box.unrecorded)
            else:
                box.unrecorded.clear()

    @contextlib.contextmanager
    def _daemon(self) -> Iterator[Daemon]:
        wakeup = Wakeup()
        self._lived = self._config
        context = RuntimeContext(self.clock, self._environ, self._interrupt)
        self._signals = Signals(self._interrupt, wakeup)
        key = ApiKey(KEY, "the story")
        # A daemon that has synced once does not end with what only a person can mend, but waits.
        totals = RunTotals(synced_once=True)
        try:
            with build.daemon_of(
                self._config,
                key=key,
                context=context,
                signals=self._signals,
                wakeup=wakeup,
                totals=totals,
                reread=lambda: self._config,
            ) as daemon:
                yield daemon
        finally:
            wakeup.close()

    # -- when something happens

    def waits(self, daemon: StoryDaemon, until_s: float | None) -> None:
        """The daemon has nothing to do until then: the story goes on by a line, or else time does."""
        if until_s is not None and until_s <= self.clock.monotonic_s():
            self._pump()  # only a glance
            return
        self._waits += 1
        if self.story and self.story[0].word == "rest":
            self._let_go()
        self.box_id = daemon.sandbox_id or self.box_id
        self._late = max(0, self._late - 1)
        if self._waits > WAITS_AT_MOST:
            self.lose(f"the daemon does not come to rest: {daemon.last_error}")
            self._end()
        elif not self.story:
            self._last_line(daemon, until_s)
        elif (self.story[0].word == "rest" and not self._rested(daemon)) or (
            self.story[0].word == "failing" and not (daemon.fails or self._rested(daemon))
        ):
            self._go_on(daemon, until_s)
        else:
            self._waits = 0
            self._turn(daemon, self.story.pop(0))

    def _turn(self, daemon: StoryDaemon, line: Line) -> None:
        """The next line's turn has come."""
        if line.at is not None:
            self._coming.append(line)
            return
        match line.word:
            case "failing":
                pass
            case "rest":
                self._coming.clear()
            case "tick":
                self.clock.go_on(line.args[0])
            case "asleep":
                self.clock.suspend(line.args[0])
            case "order":
                daemon.order(SyncRequest())
            case "flush":
                if self.workspace.is_dir() and not daemon.paused:
                    daemon.order(SyncRequest(Waiter(self), lasting=True))  # type: ignore[arg-type]
            case "pause" | "resume" as word:
                daemon.pause_or_resume(word)
            case "limit":
                self._watches = line.args[0]
            case _:
                self._do(line)
        self._pump()

    def _last_line(self, daemon: StoryDaemon, until_s: float | None) -> None:
        """From now on nothing is wrong, and the daemon has to come to rest by itself."""
        self._coming.clear()
        self.emulator.faults.clear()
        self._let_go()
        self._late, self._watches = 0, None
        if daemon.paused:
            daemon.pause_or_resume("resume")
        if not self.workspace.is_dir():
            self._do(Line("back"))
        rested = self._rested(daemon)
        if daemon.held and self.nearly_empty:
            self.figures["guarded"] += 1
            daemon.order(SyncRequest(sync_mode=SyncMode.FORCED))
        elif rested and self._must_be_told(daemon):
            self._was_forced = True
            self.figures["pushed by hand"] += 1
            daemon.order(SyncRequest(sync_mode=SyncMode.FORCED))
        elif rested and not daemon.polls:
            elsewhere = self._second_names() or ELSEWHERE in self.hand.hidden
            if until_s is not None and not self._looked and elsewhere:
                # Written by a name that is left out, a file brings no event: the periodic look sees it.
                self._looked = True
                self.clock.go_on(until_s - self.clock.monotonic_s())
                return
            if self.hand.hidden and not self._looked:
                # Written by a name that is gone, it brings no sync, but the next one finds it.
                self._looked = True
                self._nudge(daemon)
                return
            self._straggle()
            self._end()
        else:
            self._go_on(daemon, until_s)

    def note_sync(self) -> None:
        """One begins."""
        self._deeds_before_sync = self.deeds

    def _must_be_told(self, daemon: StoryDaemon) -> bool:
        """Whether it says that it could not remove or put something, or cannot know that its sandbox has ended."""
        if self._was_forced:
            return False
        if self._plain and self.blocked():
            self.lose(f"{self.blocked()[0]!r} is said to be blocked, and nobody else was there")
        box = self.box
        ended = box is not None and box.gone and (self._clock_was_set or self.box_id in self._ended_by_hand)
        return daemon.owns_up or ended or bool(self.blocked())

    def _second_names(self) -> bool:
        """Whether an included file has names that are not."""
        files = [(self.workspace / path).lstat() for path, what in self.wanted().items() if what[0] == "file"]
        names = Counter(status.st_ino for status in files)
        return any(status.st_nlink > names[status.st_ino] for status in files)

    def _nudge(self, daemon: StoryDaemon) -> None:
        """Reason for a sync, by a file of which an event tells, if there is one, and in another folder if it can be."""
        files = [path for path, what in sorted(self.wanted().items()) if what[0] == "file"]
        folders = {path.rpartition("/")[0] for path in self.hand.hidden}
        others = [path for path in files if path not in self.hand.hidden]
        others.sort(key=lambda path: path.rpartition("/")[0] in folders)
        if others:
            self._do(Line("append", (others[0], 8, 0)))
            self._pump()
        else:
            daemon.order(SyncRequest())

    def _go_on(self, daemon: StoryDaemon, until_s: float | None) -> None:
        """Time does, unless there is something to hear."""
        if not self._pump() and until_s is not None:
            self.clock.go_on(until_s - self.clock.monotonic_s())

    def _rested(self, daemon: StoryDaemon) -> bool:
        if self._pump() or self._late:
            return False
        return daemon.at_rest or daemon.paused or (daemon.held and (self.nearly_empty or not self.workspace.is_dir()))

    def _pump(self) -> bool:
        """Whether there is something to hear."""
        inotify = HandRead.newest
        if inotify is None:
            return False
        inotify.left = self._watches
        news = bool(inotify.waiting()) if inotify.is_listening() else False
        if news and self._overflows:
            self._overflows = False
            inotify.overflow()
        if not self._late:
            inotify.pump()
        return news

    def _end(self) -> None:
        self._ended = True
        self._interrupt.requested = True

    @contextlib.contextmanager
    def effects(self, *, counted: bool) -> Iterator[None]:
        """A sync begins, whose instants count; or something else does, whose effects are no instants."""
        before, self.active = self.active, counted
        if counted:
            self._instants = 0
        try:
            yield
        finally:
            self.active = before

    def meets(self, op: str, when: str) -> None:
        """The daemon asks for something, or has its answer. Raises `Killed`."""
        for meeting in [meeting for meeting in self._meetings if meeting[:2] == (op, when)]:
            if self.active and not self._saved:
                self._meetings.remove(meeting)
                with self.effects(counted=False):
                    self._do(Line(meeting[2]))

    def instant(self) -> None:
        """The daemon is about to do something. Raises `Killed`."""
        if not self.active or self._saved:  # or it is dead already, and only cleans up
            return
        self._instants += 1
        if self._coming:
            due = [line for line in self._coming if line.at is not None and line.at <= self._instants]
            self._coming = [line for line in self._coming if line not in due]
            for line in due:
                with self.effects(counted=False):
                    self._do(line)
                    if line.at and line.at % 2:
                        self._pump()

    def _do(self, line: Line) -> None:
        """What needs no daemon to listen. Raises `Killed`."""
        match line.word:
            case "stamps":
                self.coarse = line.args[0] == "coarse"
            case "fault":
                self.figures["faults"] += 1
                self.emulator.faults.script(line.args[0])
            case "clock":
                self._clock_was_set = True
                self._acquired_wall_s.clear()  # what was counted by the old time counts no more
                self.clock.set_wall(line.args[0])
            case "settings" | "reconfigure":
                self.figures["configured"] += 1
                self._settings = [*self._settings, line.args] if line.word == "reconfigure" else [line.args]
                self._config = self._configured(line.args)
                if self._signals is not None:
                    self._signals.reload = True
                    self._signals.reloads += 1
            case "forgetful":
                self._forgetful = True
            case "meets":
                self._meetings.append(line.args)
            case "agent_writes" | "agent_removes" | "sandbox_ends" if self.box is not None and not self.box.gone:
                self._over_there(self.box, line)
            case "agent_writes" | "agent_removes" | "sandbox_ends":
                pass
            case "stall":
                if self.box is not None and not self.box.sandbox.holds:
                    self.see_programs_end()
                    self.box.sandbox.hold()
            case "unstall":
                self._let_go()
            case "straggle":
                self._straggle()
            case "late":
                self._late = line.args[0]
            case "overflow":
                self.figures["events dropped"] += 1
                self._overflows = True
            case "deaf":
                self.figures["events dropped"] += 1
                if HandRead.newest is not None and HandRead.newest.is_listening():
                    HandRead.newest.die()
            case "kill":
                self._kill()
            case "stop":
                self.figures["stops"] += 1
                self._interrupt.requested = True
            case "reload":
                self.figures["stops"] += 1
                if self._signals is not None:
                    self._signals.reload = True
            case "harm":
                self.figures["harms"] += 1
                if line.args[0] == "state":
                    self._state_is_harmed()
                with contextlib.suppress(OSError):
                    self._harm(*line.args)
            case "away":
                with contextlib.suppress(OSError):
                    self.workspace.rename(self.folder / "away")
            case "back":
                with contextlib.suppress(OSError):
                    (self.folder / "away").rename(self.workspace)
            case word:
                self._deed(word, line.args)

    def _state_is_harmed(self) -> None:
        """What syncd knew it may know no more: what it put there, what it has running there, what it acquired."""
        self.state_harmed = True
        self._let_go()
        self.stragglers.clear()
        self._acquired_wall_s.clear()
        for box in self.boxes.values():
            box.ledger.forgive()

    def _over_there(self, box: Box, line: Line) -> None:
        """Somebody else does something to the sandbox."""
        self.log.append(f"{self.clock.monotonic_s():9.2f}    {line.word}{line.args}")
        self.see_programs_end()
        agent = Agent(box.sandbox.workspace)
        with contextlib.suppress(OSError):
            match line.word:
                case "agent_writes":
                    box.ledger.written(line.args[0], agent.write(*line.args))
                case "agent_removes":
                    before = tree(box.sandbox.workspace)
                    agent.remove(*line.args)
                    box.ledger.removed(line.args[0], before)
                case "sandbox_ends" if box.sandbox.id != self.named:
                    box.sandbox.record.expires_at_s = 0.0
                    self._ended_by_hand.add(box.sandbox.id)
            self.figures["done there"] += 1

    def judge_renewed(self, before: Manifest) -> None:
        """A sync went by without a word after the workspace had been made anew."""
        files = [path for path, entry in before.items() if entry.kind is not Kind.DIRECTORY]
        if self.deeds != self._deeds_before_sync:
            return  # it may have been as large as before when it was looked at
        places = [self.workspace / path for path in files]
        left = [place for place in places if place.is_symlink() or place.is_file()]
        if len(files) >= SMALL_FILES and len(left) * LEFT_ONE_IN < len(files):
            self.lose(f"another workspace was taken for the one that held {len(files)} files")

    def _let_go(self) -> None:
        for box in self.boxes.values():
            if box.sandbox.holds:
                box.sandbox.start_held()
        self.see_programs_end()

    def _straggle(self) -> None:
        """What was asked to be run there, and never answered, gets through after all."""
        names, self.stragglers = self.stragglers, []
        for name in names:
            box = self.box
            if box is None or box.gone or box.sandbox.execution(name) is not None:
                continue
            url = f"{self.emulator.base_url}/local-sandbox/{box.sandbox.id}/execute?region=us"
            with self._nothing_wrong():
                answer = httpx.post(
                    url, headers={"Authorization": f"Bearer {KEY}"}, json={"execution_name": name}, trust_env=False
                )
            self.figures["late executions"] += answer.status_code == 200
            self.log.append(f"{self.clock.monotonic_s():9.2f}    {name} arrives late: {answer.status_code}")
            self.see_programs_end()

    @contextlib.contextmanager
    def _nothing_wrong(self) -> Iterator[None]:
        """The faults to come are not for this."""
        faults = self.emulator.faults
        take, faults.take = faults.take, lambda op: None  # type: ignore[method-assign]
        try:
            yield
        finally:
            faults.take = take  # type: ignore[method-assign]

    def _deed(self, word: str, args: tuple[Any, ...]) -> None:
        self.deeds += 1
        self.log.append(f"{self.clock.monotonic_s():9.2f}    {word}{args}")
        if not self.workspace.is_dir():
            return
        self.renewed |= word == "renew"
        with contextlib.suppress(OSError):
            if word == "hush":
                self._late = 0  # what no event told of for seconds can be known to nobody
            getattr(self.hand, word)(*args)
            self.figures["deeds"] += 1
        self.clock.note_write()
        for box in self.boxes.values():
            box.ledger.before_initialize(self.workspace)

    def _kill(self) -> None:
        self.figures["kills"] += 1
        for box in self.boxes.values():
            box.sure, box.reset_of = False, set()
        for name in ("state", "cache"):
            copy = self.folder / "saved" / name
            copy.mkdir(parents=True)
            if (self.folder / name).is_dir():
                shutil.copytree(self.folder / name, copy, symlinks=True, ignore=_sockets, dirs_exist_ok=True)
            self._saved.append(copy)
        raise Killed

    def _harm(self, where: str, how: str, number: int) -> None:
        """Something becomes of what the daemon keeps on disk."""
        top = self.folder / ("cache" if where == "spool" else "state")
        # That a mark without content is gone, nobody can see.
        spared = {"lock", "unsure"} if how == "drop" else {"lock"}
        files = sorted(path for path in top.rglob("*") if path.is_file() and path.name not in spared)
        if not files:
            return
        file = files[number % len(files)]
        content = bytearray(file.read_bytes())
        match how:
            case "flip" if content:
                content[(number * 997) % len(content)] ^= 4
                file.write_bytes(content)
            case "cut":
                os.truncate(file, len(content) // 2)
            case "drop":
                file.unlink()
            case "foreign":
                file.write_bytes(b"something else\n" * 20)
            case "folder" if where == "spool":
                file.unlink()
                file.mkdir()
            case "empty" if where == "spool":
                shutil.rmtree(top)


class Pen(logging.Handler):
    """Writes down what the daemons say, and when."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.append(f"{living().clock.monotonic_s():9.2f}  {record.getMessage()}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode)]


# -- all together

_living: list[World] = []


def living() -> World:
    """Whose story is being lived."""
    return _living[-1]


def _hook(event: str, args: object) -> None:
    if _living and event in EFFECTS and threading.get_ident() == _main:
        _living[-1].instant()


_main = threading.get_ident()
_hooked: list[bool] = []


@contextlib.contextmanager
def _in_place(world: World) -> Iterator[None]:
    """The story's time, reader and instants, in the place of the machine's."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_hook)  # can never be taken away, so there is only one
    grain = 2_000_000_000

    def stamp_of(status: os.stat_result) -> Stamp:
        mtime_ns, ctime_ns = map(world.clock.wall_at_ns, (status.st_mtime_ns, status.st_ctime_ns))
        if world.coarse:
            mtime_ns, ctime_ns = mtime_ns // grain * grain, ctime_ns // grain * grain
        return Stamp(mtime_ns, ctime_ns, status.st_ino, status.st_dev)

    def mark(status: os.stat_result) -> tuple[int, int, int, int]:
        stamp = stamp_of(status)
        return status.st_size, stamp.mtime_ns, stamp.ctime_ns, status.st_mode

    logger = logging.getLogger("syncd")
    before = logger.level, logger.propagate
    pen = Pen(world.log)
    with pytest.MonkeyPatch.context() as patch:
        for module in [module for name, module in sys.modules.items() if name.startswith("syncd.")]:
            if hasattr(module, "stamp_of"):
                patch.setattr(module, "stamp_of", stamp_of)
        patch.setattr(file_reader, "_file_state", mark)
        patch.setattr(watch_module, "Inotify", HandRead)
        patch.setattr(os, "fsync", lambda descriptor: None)  # no power is cut here, and a disk takes its time
        # Files of a few KB are cut, and read piece by piece, as those of a few MB are.
        patch.setattr(chunking, "TARGET_BYTES", 1024)
        patch.setattr(chunking, "LARGEST_BYTES", 8192)
        for module in (file_reader, packer):
            patch.setattr(module, "PIECE_BYTES", 4096)
        patch.setattr(build, "selection_of", lambda config: SELECTION)
        patch.setattr(build, "personal_excludes", lambda environ: "")
        for name, ours in (
            ("Daemon", StoryDaemon),
            ("SyncCycle", Watchful),
            ("HttpClient", Knocking),
            ("SystemdNotifier", Instants),
        ):
            patch.setattr(build, name, ours)
        patch.setattr(sandbox_factory, "JobRunner", Asking)
        HandRead.newest = None
        _living.append(world)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(pen)
        try:
            yield
        finally:
            logger.removeHandler(pen)
            logger.level, logger.propagate = before
            _living.pop()


def lived(cloud: Cloud, folder: Path, story: Sequence[Line], figures: Counter[str]) -> World:
    """The world in which the story was lived, and what was lost in it. `folder` is a place for it alone."""
    world = World(cloud, folder, story, figures)
    with _in_place(world):
        world.live()
        world.hand.let_go()
        for box in world.boxes.values():
            box.sandbox.record.expires_at_s = 0.0
        cloud.emulator.sandboxes()  # which has them swept away
    cloud.emulator.faults.clear()
    figures["stories"] += 1
    shutil.rmtree(folder)
    return world


SHORTEN_S = 30.0


def report(cloud: Cloud, folder: Path, seed: int, world: World) -> str:
    """What a person wants to read of a story that ended badly: the shortest form of it, and what the daemon said."""
    ends_s = MACHINE.monotonic_s() + SHORTEN_S
    worst = world

    def fails(candidate: Story) -> bool:
        nonlocal worst
        tried = lived(cloud, folder / f"shorter{cloud.used}", candidate, Counter())
        if tried.lost:
            worst = tried
        return bool(tried.lost)

    short = shortened(story(seed), fails, lambda: MACHINE.monotonic_s() < ends_s)
    lines = [f"seed {seed} (python -m tests.fuzz --seed {seed} --schedules 1):", told(short), ""]
    return "\n".join([*lines, *worst.log[-60:], "", *worst.lost[:5]])


def lived_batch(batch: tuple[str | None, Sequence[int]]) -> tuple[Counter[str], list[str]]:
    """Lives the stories of these seeds in a folder below that one: what happened, and a report of each loss."""
    place, seeds = batch
    figures: Counter[str] = Counter()
    reports = []
    with tempfile.TemporaryDirectory(dir=place, prefix="stories-") as name, Cloud(Path(name) / "cloud") as cloud:
        for seed in seeds:
            world = lived(cloud, Path(name) / str(seed), story(seed), figures)
            if world.lost:
                figures["losses"] += 1
                reports.append(report(cloud, Path(name), seed, world))
    return figures, reports
