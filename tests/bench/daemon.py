"""The real daemon as a process with its own home, and the emulator with the times of its initializes."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench.stopwatch import CLOCK, REPO
from tests.emulator import Emulator, RequestRecord

SANDBOX = "box"
QUIET_S = 0.05
DEADLINE_S = 300.0  # a busy machine with 50,000 files


class Initialized(NamedTuple):
    """Monotonic times: when the emulator had the archive, and when it had answered the `initialize`."""

    uploaded_s: float
    at_s: float


class TimedEmulator:
    """The emulator, with the times of its initializes."""

    def __init__(self, folder: Path) -> None:
        self.emulator = Emulator(folder, observer=self._saw)
        self._moments: queue.SimpleQueue[Initialized] = queue.SimpleQueue()
        self._uploaded_s = 0.0

    def _saw(self, entry: RequestRecord) -> None:
        if entry.op == "upload":
            self._uploaded_s = CLOCK.monotonic_s()
        elif entry.op == "initialize" and entry.status == 200:
            self._moments.put(Initialized(self._uploaded_s, CLOCK.monotonic_s()))

    def next(self) -> Initialized:
        """Return the next initialize. Raises `queue.Empty` when none comes."""
        return self._moments.get(timeout=DEADLINE_S)

    def forget(self) -> None:
        """Drop the initializes so far."""
        while not self._moments.empty():
            self._moments.get()


class DaemonHome:
    """A home with a configuration and a key."""

    def __init__(
        self,
        folder: Path,
        workspace: Path,
        base_url: str,
        key: str = "key",
        keys: Mapping[str, object] | None = None,
    ) -> None:
        self._home = folder
        config = folder / ".config/syncd/config.toml"
        config.parent.mkdir(parents=True)
        key_file = config.with_name("api-key")
        key_file.touch(mode=0o600)
        key_file.write_text(key)
        values = {
            "workspace.path": str(workspace),
            "sandbox.id": SANDBOX,
            "sandbox.base_url": base_url,
            "sync.debounce_seconds": QUIET_S,
            **(keys or {}),
        }
        config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
        self.log = folder / "log"

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the command's processes."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        folders = {"CONFIG": ".config", "STATE": ".local/state", "CACHE": ".cache"}
        xdg = {f"XDG_{name}_HOME": str(self._home / folder) for name, folder in folders.items()}
        return {**kept, **xdg, "HOME": str(self._home), "LANG": "C.UTF-8"}

    def run(self, *words: str) -> None:
        """Run `syncd WORDS` to its end. Raises `CalledProcessError`."""
        subprocess.run(
            (sys.executable, "-m", "syncd", *words),
            cwd=REPO,
            env=self.environment(),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE_S,
        )

    @contextmanager
    def daemon(self) -> Iterator[int]:
        """Run `syncd run`, and give its pid."""
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                (sys.executable, "-m", "syncd", "run"),
                cwd=REPO,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE_S)
            finally:
                process.kill()
                process.wait()


@contextmanager
def running(folder: Path, workspace: Path) -> Iterator[tuple[TimedEmulator, DaemonHome, int]]:
    """Give a daemon that has synced and waits for changes: its emulator, home and pid."""
    timed_emulator = TimedEmulator(folder / "cloud")
    with timed_emulator.emulator as emulator:
        emulator.create_sandbox(SANDBOX)
        daemon_home = DaemonHome(folder / "home", workspace, emulator.base_url, emulator.api_key)
        with daemon_home.daemon() as pid:
            timed_emulator.next()
            daemon_home.run("flush")
            timed_emulator.forget()
            yield timed_emulator, daemon_home, pid
