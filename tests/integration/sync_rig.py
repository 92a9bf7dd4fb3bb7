"""The rig of the integration tests: the real sync cycle against the emulator in process, in scripted time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import override

from syncd.archive.snapshotter import SyncMode
from syncd.core.api_key import ApiKey
from syncd.core.settings import check_config
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.daemon.build import access_of, workspace_of
from syncd.model.entry import Kind
from syncd.remote.failure import StepFailed
from syncd.remote.http_client import HttpClient
from syncd.sandbox.saved_versions import SavedVersions
from syncd.store.state_db import StateDb
from syncd.sync.outcome import Outcome
from syncd.sync.status_document import Progress, SandboxStatus, State
from syncd.sync.sync_cycle import SyncCycle
from tests.agent import Agent
from tests.clock import ScriptedClock
from tests.emulator import Emulator
from tests.emulator.request_log import RequestRecord

KEY = "sk-key-of+the/test="
SANDBOX = "box"
# A sync of these settings is one upload and one initialize. So most tests can count requests, and tell which of them
# fails, without those of looks, removals and proofs. Tests of these call `Rig.use_defaults`.
_PLAIN_SANDBOX = {"agent_changes": "overwrite", "deletions": "keep"}
_PLAIN_SYNC = {"archive": "full"}


class Killed(BaseException):
    """The process was killed."""


@dataclass
class RecordingObserver:
    """A sync observer that records all calls and waits in scripted time; `ends` is raised instead of waiting.

    `only` are the directories to scan, None: all.
    """

    clock: ScriptedClock
    stages: list[State] = field(default_factory=list)
    sent_bytes: list[int] = field(default_factory=list)
    failures: list[StepFailed] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    ends: BaseException | None = None
    only: Collection[str] | None = None

    def to_scan(self) -> Collection[str] | None:
        return self.only

    def scanned(self) -> None: ...

    def stage(self, state: State) -> None:
        self.stages.append(state)

    def progressed(self, progress: Progress) -> None:
        assert progress.done_bytes <= progress.total_bytes
        if progress.is_upload:
            self.sent_bytes.append(progress.done_bytes)

    def wait_out(self, failure: StepFailed, wait_s: float) -> None:
        self.failures.append(failure)
        self.waits.append(wait_s)
        if self.ends is not None:
            raise self.ends
        self.clock.go_on(wait_s)


@dataclass
class DamagingObserver(RecordingObserver):
    """Damages the spool below `folder` when an upload begins, this many times."""

    folder: Path = Path()
    times: int = 1
    chunks: str = "chunks/*"

    def stage(self, state: State) -> None:
        super().stage(state)
        if state is State.UPLOADING and self.times:
            self.times -= 1
            for chunk in self.folder.glob(f"cache/syncd/*/{self.chunks}"):
                with chunk.open("r+b") as file:
                    file.write(b"\0\0\0\0")


class _RigWaiter(Waiter):
    """The waits of a rig, which lets the world go on in each step of its work."""

    def __init__(self, rig: Rig, clock: ScriptedClock) -> None:
        super().__init__(Interrupt(), clock)
        self._rig = rig

    @override
    def poll_events(self) -> None:
        super().poll_events()
        self._rig.meanwhile()


class Rig:
    """A workspace, its folders, and an emulator with its sandbox."""

    def __init__(self, folder: Path, emulator: Emulator, clock: ScriptedClock) -> None:
        self.folder = folder
        self.emulator = emulator
        self.clock = clock
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.sandbox = emulator.create_sandbox(SANDBOX)
        self.agent = Agent(self.sandbox.workspace)
        self.client = HttpClient(_RigWaiter(self, clock))
        self.keys: dict[str, dict[str, Any]] = {
            "workspace": {"path": str(self.workspace)},
            "sandbox": {"id": SANDBOX, "base_url": emulator.base_url, **_PLAIN_SANDBOX},
            "sync": {**_PLAIN_SYNC},
            "retry": {"first_delay_seconds": 1, "max_delay_seconds": 8, "give_up_after_seconds": 60},
        }
        self.key = ApiKey(KEY, "the test")
        self.environ = {"XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder / "cache")}
        # Called between any two steps of a scan or of packing: where a test lets the world go on, or end.
        self.meanwhile: Callable[[], None] = lambda: None
        self.failures: list[StepFailed] = []  # of all syncs, also those that were followed by another attempt
        self._cycle: SyncCycle | None = None

    @property
    def cycle(self) -> SyncCycle:
        """The sync cycle of the present process."""
        if self._cycle is None:
            access = access_of(check_config(self.keys), self.environ, self.key, self.client)
            workspace = workspace_of(access.config, self.environ, self.client.waiter, self.key.reveal())
            self._cycle = SyncCycle(access, workspace)
            self._cycle.recall()
        return self._cycle

    def use_defaults(self) -> None:
        """Have the next process look, remove and prove, as with no setting of the configuration."""
        for key in _PLAIN_SANDBOX:
            self.keys["sandbox"].pop(key, None)
        for key in _PLAIN_SYNC:
            self.keys["sync"].pop(key, None)
        self.restart()
        self.wait_for_programs()

    def wait_for_programs(self) -> None:
        """Let the emulator answer only once a program has ended: it runs in real time, unless it is held."""

        def wait(request: RequestRecord) -> None:
            sandbox = self.emulator.sandbox(request.sandbox or "")
            if sandbox is not None and not sandbox.holds:
                sandbox.wait()

        self.emulator.faults.on("execution-logs", "before", wait)

    def restart(self) -> None:
        """End the process; the next one knows only what is on disk."""
        self.client.drop()
        if self._cycle is not None:
            self._cycle.access.db.close()
        self._cycle = None

    def set(self, table: str = "sandbox", **values: object) -> None:
        """Set keys for the next process, which begins now."""
        self.keys[table] |= values
        self.restart()

    def edit(self, **contents: str) -> None:
        """Write files here."""
        for path, content in contents.items():
            self.write(path, content)

    def write(self, path: str = "a.txt", content: str = "hello") -> None:
        file = self.workspace / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def delete(self, *paths: str) -> None:
        for path in paths:
            (self.workspace / path).unlink()

    def send(self, contents: Mapping[str, str]) -> Outcome:
        """Write files here, and sync once, without a failure."""
        for path, content in contents.items():
            self.write(path, content)
        return self.sync()[0]

    def end_faults(self) -> None:
        """Have the emulator do all right again."""
        self.emulator.faults.clear()
        self.wait_for_programs()

    def sync(
        self, sync_mode: SyncMode = SyncMode.CHANGED, observer: RecordingObserver | None = None
    ) -> tuple[Outcome, RecordingObserver]:
        """Sync once, without a failure."""
        observer = observer or RecordingObserver(self.clock)
        try:
            return self.cycle.run(sync_mode, observer), observer
        finally:
            self.failures += observer.failures

    def fail(self, observer: RecordingObserver | None = None) -> tuple[StepFailed, RecordingObserver]:
        """Sync once, with a failure."""
        observer = observer or RecordingObserver(self.clock)
        try:
            self.sync(observer=observer)
        except StepFailed as failure:
            self.failures.append(failure)
            return failure, observer
        raise AssertionError("it did not fail")

    def settle(self) -> Outcome:
        """Sync until nothing follows, and return the last outcome."""
        for _ in range(4):
            outcome, _ = self.sync()
            if not outcome.follow_up:
                return outcome
        raise AssertionError("there is always one more sync")

    @property
    def status(self) -> SandboxStatus:
        """What the cycle tells of its sandbox."""
        return self.cycle.shown(SandboxStatus(name="main", id="", base_url=""))

    @property
    def state_folder(self) -> Path:
        (folder,) = self.folder.glob("state/syncd/*")
        return folder

    @property
    def warnings(self) -> dict[str, str]:
        """The words of each warning, by its key."""
        return {warning.key: str(warning) for warning in self.cycle.warnings}

    @property
    def saved(self) -> dict[str, list[str]]:
        """The saved contents of each path, the oldest first; a link's is its target."""
        versions = SavedVersions(StateDb(str(self.state_folder)), self.clock)
        found: dict[str, list[str]] = {}
        for version in reversed(versions.all()):
            for path, saved in version.paths.items():
                content = Path(versions.seen(version, path).copy)
                text = content.read_text() if saved.kind is Kind.FILE else saved.target
                found.setdefault(path, []).append(text)
        return found

    @property
    def uploads(self) -> int:
        """How many archives arrived in the bucket."""
        return self.emulator.request_log.count("upload", 200)

    def asked(self) -> list[str]:
        """Return the operations that the emulator was asked for."""
        return self.emulator.request_log.ops()

    def is_quiet(self) -> bool:
        """True if two syncs send and remove nothing; the first of a process asks once if all is still there."""
        before = len(self.asked())
        words = {self.sync()[0].word for _ in range(2)}
        asked = self.asked()[before:]
        is_idle = {"upload", "initialize", "reset", "upload-url"}.isdisjoint(asked)
        return words == {"unchanged"} and is_idle and asked.count("execute") <= 1

    def stays_quiet(self) -> bool:
        """True if nothing is asked for while nothing changes; the next process asks once if all is still there."""
        before = len(self.asked())
        if self.sync()[0].word != "unchanged" or len(self.asked()) != before:
            return False
        self.restart()
        return self.is_quiet()

    def there(self, path: str) -> str | None:
        """Return the content of a file in the sandbox."""
        return self.agent.read(path).decode() if self.agent.exists(path) else None

    def arrived(self) -> dict[str, str]:
        """Return the files in the sandbox with their contents."""
        return files(self.sandbox.workspace)

    def is_as_home(self) -> bool:
        """True if the sandbox has the files of the workspace, and no others."""
        self.sandbox.wait()
        return self.arrived() == files(self.workspace)


def files(top: Path) -> dict[str, str]:
    """Return the files below `top` with their contents."""
    return {str(file.relative_to(top)): file.read_text() for file in top.rglob("*") if file.is_file()}


@contextmanager
def rigged(folder: Path, **options: Any) -> Iterator[Rig]:
    """Give a rig in `folder`; `options` are the emulator's."""
    clock = ScriptedClock()
    with Emulator(folder / "emulator", api_key=KEY, clock=clock, **options) as emulator:
        rig = Rig(folder, emulator, clock)
        try:
            yield rig
        finally:
            rig.restart()
