"""The demo's environment: an emulated sandbox API and a real daemon in one temporary folder, removed at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue

from syncd.archive.comparison import Comparison, compare
from syncd.archive.secret_files import exclude_secret_files
from syncd.cli.init.config_template import toml
from syncd.cli.options import CLOCK
from syncd.core.errors import Stop, TryLater, WorkspaceError, failure_with
from syncd.core.settings import Config, check_config
from syncd.daemon.build import excludes_for, secret_search_of, selection_of
from syncd.emulator import Emulator, RequestRecord
from syncd.model.manifest import Manifest
from syncd.scan.file_reader import ContentReader
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Decision
from syncd.watch.scan_listener import NoScanListener

_SANDBOX = "demo"
# The daemon itself takes at most 5 s from signal to exit.
_STOP_S = 6.0
_FLUSH_S = 30
_URL_LIFETIME_S = 1800
# Shorter than the defaults, so that a person need not wait.
_TIMING = {"sync.debounce_seconds": 0.5, "retry.first_delay_seconds": 0.3, "retry.max_delay_seconds": 1.0}
# In the tour, what both sides change waits for the person.
_TOUR = {"sandbox.agent_changes": "hold"}
# Set by a service manager for its own service, which the demo's daemon is not.
_SERVICE_VARIABLES = ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC")
# -P: a folder named syncd in the current directory must not be taken for the program.
_SYNCD = (sys.executable, "-P", "-m", "syncd")
_WHO = {"NAME": "demo", "EMAIL": "demo@localhost"}
_LOG_PREFIX = re.compile(r"\S+Z [a-z]+ +")

# A request that the emulator finished, or a line of the daemon's log.
DemoEvent = RequestRecord | str
_Events = SimpleQueue[DemoEvent | BaseException]


class DemoEnvironment:
    """Emulator, workspace and daemon. Every event comes out of `next_event`, so that one thread shows them in order."""

    def __init__(self, config: Config, folder: str, emulator: Emulator, events: _Events, log_level: str) -> None:
        self.requests: list[RequestRecord] = []
        self.workspace = config.workspace.path
        self.emulator = emulator
        self.sandbox = emulator.create_sandbox(_SANDBOX)
        self._config = config
        self._events = events
        self._log_level = log_level
        self._config_file = os.path.join(folder, "config.toml")
        inherited = {name: value for name, value in os.environ.items() if name not in _SERVICE_VARIABLES}
        self._environ = inherited | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "KLAVIS_API_KEY": emulator.api_key,
            "XDG_STATE_HOME": os.path.join(folder, "state"),
            "XDG_CACHE_HOME": os.path.join(folder, "cache"),
        }
        self._daemon: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start `syncd run` as a process of its own."""
        self._daemon = subprocess.Popen(
            [*_SYNCD, "run", "--config", self._config_file, "--log-level", self._log_level],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the daemon
        )
        self._reader = threading.Thread(target=self._read_log, args=(self._daemon,), name="demo-daemon-log")
        self._reader.start()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the daemon this signal, and return when it has exited."""
        daemon, self._daemon = self._daemon, None
        if daemon is None or self._reader is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        self._reader.join()

    def flush(self) -> None:
        """Run `syncd flush`; a failure is the next event, after the signal that interrupted it."""
        self.run("flush", "--timeout", str(_FLUSH_S))

    def run(self, command: str, *arguments: str, codes: Collection[int] = (0,)) -> str:
        """Run a command of syncd, and return its output; another exit code than these is the next event, as by `flush`.

        It runs in the workspace, as a person would run it.
        """
        done = subprocess.run(
            [*_SYNCD, command, "--config", self._config_file, *arguments],
            cwd=self.workspace,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode not in codes:
            said = os.fsdecode(done.stderr).strip()
            self._events.put(TryLater(f"syncd {command} ended with {done.returncode} ({said})", "please report it"))
        return done.stdout.decode("utf-8", "replace")

    def git(self, folder: str, *arguments: str) -> str:
        """Run git in a folder, as a person or an agent would, but without anyone's own settings; return its output."""
        who = {f"GIT_{role}_{part}": text for role in ("AUTHOR", "COMMITTER") for part, text in _WHO.items()}
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            cwd=folder,
            env={**self._environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            said = os.fsdecode(done.stderr).strip()
            self._events.put(TryLater(f"git {arguments[0]} ended with {done.returncode} ({said})", "please report it"))
        return done.stdout.decode("utf-8", "replace")

    def next_event(self, timeout_s: float) -> DemoEvent | None:
        """The next event, None if none comes in time. Raises `Stop` after a signal, `SyncdError` if syncd failed."""
        try:
            event = self._events.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(event, BaseException):
            raise event
        if isinstance(event, RequestRecord):
            self.requests.append(event)
        return event

    def scan(self) -> tuple[Manifest, list[tuple[str, Decision]]]:
        """The manifest of the workspace, and the paths that are left out of it."""
        left_out: list[tuple[str, Decision]] = []

        def add(path: str, is_dir: bool, decision: Decision) -> None:
            left_out.append((f"{path}/" if is_dir else path, decision))

        excludes = excludes_for(self._config, os.environ)
        selection = selection_of(self._config, os.environ)
        scan = Scanner(self.workspace, selection, NoScanListener(), add, personal_excludes=excludes).scan()
        reader = ContentReader(self.workspace, CLOCK, search=secret_search_of(self._config))
        secrets = exclude_secret_files(scan, reader)
        return scan.manifest, left_out + [(path, Decision(False, secret.rule)) for path, secret in secrets.items()]

    def compare(self) -> tuple[Manifest, Comparison]:
        """The manifest of the workspace, and how the sandbox differs from it."""
        manifest, _ = self.scan()
        return manifest, compare(self.workspace, manifest, str(self.sandbox.workspace))

    def _read_log(self, daemon: subprocess.Popen[bytes]) -> None:
        assert daemon.stderr is not None  # noqa: S101 - it was opened with a pipe
        message = ""
        with daemon.stderr as lines:
            for line in lines:
                message = _LOG_PREFIX.sub("", line.decode("utf-8", "replace").strip(), count=1)
                self._events.put(message)
        code = daemon.wait()
        if daemon is self._daemon:  # else `end` stopped it
            self._events.put(failure_with(code, f"syncd run ended with {code}: {message.removeprefix('syncd: ')}"))


@contextmanager
def demo_environment(directory: str | None) -> Iterator[DemoEnvironment]:
    """An environment for this directory, or for a new empty one. Raises `SyncdError` for one that cannot be watched."""
    events: _Events = SimpleQueue()
    with ExitStack() as opened:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A handler may put into a SimpleQueue; with a Queue it could deadlock.
            opened.callback(signal.signal, number, signal.signal(number, lambda *_: events.put(Stop())))
        folder = os.path.realpath(opened.enter_context(tempfile.TemporaryDirectory(prefix="syncd-demo-")))
        cloud = os.path.join(folder, "cloud")
        emulator = opened.enter_context(
            Emulator(cloud, port=0, api_key="", url_lifetime_s=_URL_LIFETIME_S, clock=CLOCK, observer=events.put)
        )
        workspace = os.path.abspath(directory or os.path.join(folder, "workspace"))
        config = _write_config(workspace, folder, emulator.base_url, _TOUR if directory is None else {})
        log_level = "info"
        if directory is None:
            os.mkdir(workspace)
            log_level = "warning"
        elif folder.startswith(config.workspace.path + os.sep):
            raise WorkspaceError(f"{directory} holds the demo's own folder {folder}", "set TMPDIR to another folder")
        environment = DemoEnvironment(config, folder, emulator, events, log_level)
        opened.callback(environment.end)
        yield environment


def _write_config(workspace: str, folder: str, base_url: str, more: Mapping[str, object]) -> Config:
    values = {
        "workspace.path": workspace,
        "sandbox.id": _SANDBOX,
        "sandbox.base_url": base_url,
        "sandbox.api_key_file": os.path.join(folder, "no-key-file"),  # the key is in the environment
        **_TIMING,
        **more,
    }
    text = "".join(f"{name} = {toml(value, name)}\n" for name, value in values.items())
    with open(os.path.join(folder, "config.toml"), "w", encoding="utf-8") as file:
        file.write(text)
    return check_config(tomllib.loads(text))
