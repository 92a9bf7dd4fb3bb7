"""What a demonstration stands on: an emulated cloud and a real daemon, all in one temporary folder, gone at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType

import syncd
from syncd.archive.comparison import Comparison, compare
from syncd.cli.init.config_template import toml
from syncd.cli.options import CLOCK
from syncd.core.errors import NeedsPerson, Stop, SyncdError, TryLater, WorkspaceError
from syncd.core.settings import Config, check_config, load_config
from syncd.daemon.build import selection_of
from syncd.emulator import Emulator, RequestRecord, Sandbox
from syncd.scan.manifest import Manifest
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Decision, Selection
from syncd.watch.scan_listener import NoScanListener

SANDBOX = "demo"
# The daemon's own promise is 5 s from signal to exit.
_STOP_S = 6.0
_FLUSH_S = 30
# Fast, so that nobody waits; everything else is as it comes.
_TIMING = {"sync.debounce_seconds": 0.5, "retry.first_delay_seconds": 0.3, "retry.max_delay_seconds": 1.0}
# A demonstration under a service manager is none of its services.
_FOREIGN = ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC")


@dataclass(frozen=True)
class SyncdPrinted:
    """A line of the daemon's log."""

    level: str
    message: str


@dataclass(frozen=True)
class DaemonExited:
    """A daemon's process is gone."""

    pid: int
    code: int


@dataclass(frozen=True)
class _Asked:
    """Someone wants the demonstration to end."""


# A request that the emulator finished, or one of the above.
DemoEvent = RequestRecord | SyncdPrinted | DaemonExited
DemoEvents = SimpleQueue[DemoEvent | _Asked]


class DemoRun:
    """Cloud, daemon and workspace. Whatever happens comes out of `next`, so that one thread shows it in order."""

    def __init__(self, config: Config, folder: str, emulator: Emulator, events: DemoEvents) -> None:
        self.workspace = config.workspace.path
        self.emulator = emulator
        self.sandbox: Sandbox = emulator.create_sandbox(SANDBOX)
        self._folder = folder
        self._events = events
        self._config_file = config.file
        self._selection: Selection = selection_of(config)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._last_words = ""

    # -- the daemon

    def start(self) -> None:
        """`syncd run`, as a process of its own."""
        self._daemon = subprocess.Popen(
            [*_PYTHON, "run", "--config", self._config_file, "--log-format", "json"],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demonstration, which then stops the daemon
        )
        self._reader = threading.Thread(target=self._listen, args=(self._daemon,), name="demo-daemon-log")
        self._reader.start()

    def kill(self) -> None:
        """`kill -9`: nothing of it gets to run any more. Returns when it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to stop, as a service manager would."""
        self._end(signal.SIGTERM)

    def flush(self) -> None:
        """`syncd flush`. Raises `TryLater` if it fails, `Stop` if it was interrupted."""
        done = subprocess.run(
            [*_PYTHON, "flush", "--config", self._config_file, "--timeout", str(_FLUSH_S)],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode and not self._asked():
            raise TryLater(f"syncd flush ended with {done.returncode}: {os.fsdecode(done.stderr).strip()}")

    def next(self, timeout_s: float | None = None) -> DemoEvent | None:
        """What happened next, None if nothing did in that time.

        Raises `Stop` if someone asked for the end, `SyncdError` if the daemon ended by itself.
        """
        try:
            event = self._events.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(event, _Asked):
            raise Stop
        if isinstance(event, SyncdPrinted):
            self._last_words = event.message
        if isinstance(event, DaemonExited) and self._daemon is not None and event.pid == self._daemon.pid:
            kind: type[SyncdError] = NeedsPerson if event.code == NeedsPerson.exit_code else TryLater
            raise kind(f"syncd run ended with {event.code}", self._last_words.removeprefix("syncd: "))
        return event

    # -- the truth

    def scan(self, left_out: list[tuple[str, Decision]] | None = None) -> Manifest:
        """What belongs in the sandbox now; what does not is added to `left_out`."""

        def note(path: str, is_dir: bool, decision: Decision) -> None:
            if left_out is not None:
                left_out.append((f"{path}/" if is_dir else path, decision))

        return Scanner(self.workspace, self._selection, NoScanListener(), note).scan().manifest

    def compare(self) -> tuple[Manifest, Comparison]:
        """The workspace as it is now, and how the sandbox's differs from it."""
        manifest = self.scan()
        return manifest, compare(self.workspace, manifest, str(self.sandbox.workspace))

    def _asked(self) -> bool:
        """Whether someone asked for the end; what else has come stays in its order."""
        waiting = []
        while not self._events.empty():
            waiting.append(self._events.get())
        for event in waiting:
            self._events.put(event)
        return any(isinstance(event, _Asked) for event in waiting)

    def _end(self, number: signal.Signals) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        if self._reader is not None:
            self._reader.join()

    def _listen(self, daemon: subprocess.Popen[bytes]) -> None:
        assert daemon.stderr is not None  # noqa: S101 - it was opened with a pipe
        with daemon.stderr as lines:
            for line in lines:
                self._events.put(_said(line))
        self._events.put(DaemonExited(daemon.pid, daemon.wait()))

    def _environment(self) -> Mapping[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        package = os.path.dirname(os.path.dirname(os.path.abspath(syncd.__file__)))
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", "")))),
            "KLAVIS_API_KEY": self.emulator.api_key,
            "XDG_STATE_HOME": os.path.join(self._folder, "state"),
            "XDG_CACHE_HOME": os.path.join(self._folder, "cache"),
            "XDG_CONFIG_HOME": os.path.join(self._folder, "config"),
        }


# -P: a folder named syncd where the demonstration was started must not be taken for the program.
_PYTHON = (sys.executable, "-P", "-m", "syncd")


@contextmanager
def staged(directory: str | None) -> Iterator[DemoRun]:
    """A stage on this directory, or on a new empty one; all of it is gone in the end, but for the directory.

    Raises `SyncdError` for a directory that cannot be watched.
    """
    events: DemoEvents = SimpleQueue()
    with ExitStack() as opened:
        opened.enter_context(_signals_into(events))
        folder = os.path.realpath(opened.enter_context(tempfile.TemporaryDirectory(prefix="syncd-demo-")))
        workspace = os.path.join(folder, "workspace") if directory is None else _checked(directory, folder)
        if directory is None:
            os.mkdir(workspace)
        emulator = opened.enter_context(Emulator(os.path.join(folder, "cloud"), observer=events.put))
        stage = DemoRun(_configured(workspace, folder, emulator), folder, emulator, events)
        opened.callback(stage.stop)
        yield stage


def _configured(workspace: str, folder: str, emulator: Emulator) -> Config:
    values = {
        "workspace.path": workspace,
        "sandbox.id": SANDBOX,
        "sandbox.base_url": emulator.base_url,
        "sandbox.api_key_file": os.path.join(folder, "no-key-file"),  # the key is in the environment
        **_TIMING,
    }
    path = os.path.join(folder, "config.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{name} = {toml(value, name)}\n" for name, value in values.items())
    return load_config(path)


def _checked(directory: str, folder: str) -> str:
    raw = {"workspace": {"path": os.path.abspath(directory)}, "sandbox": {"id": SANDBOX}}
    workspace = check_config(raw).workspace.path
    if folder.startswith(workspace + os.sep):
        raise WorkspaceError(f"{directory} holds the demonstration's own {folder}", "set TMPDIR to another folder")
    return workspace


@contextmanager
def _signals_into(events: DemoEvents) -> Iterator[None]:
    """A signal is one more thing that happens. A SimpleQueue may be put to in a handler; a Queue could deadlock."""

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        events.put(_Asked())

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def now_s() -> float:
    """For the seconds that are shown."""
    return CLOCK.monotonic_s()


def _said(line: bytes) -> SyncdPrinted:
    text = line.decode("utf-8", "replace").strip()
    try:
        document = json.loads(text)
        return SyncdPrinted(document["level"], document["message"])
    except (ValueError, KeyError, TypeError):
        return SyncdPrinted("error", text)
