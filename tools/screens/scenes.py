"""The scenes of the screenshots, each with a real daemon and an emulated sandbox."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyte

from syncd.core.clock import SystemClock
from syncd.core.directories import directories_for
from tests.agent import Agent
from tests.emulator import Emulator
from tests.system.terminal import Terminal

_CLOCK = SystemClock()
_SYNCD = (sys.executable, "-P", "-m", "syncd")
_REPO = Path(__file__).resolve().parents[2]
_SANDBOX = "tea-sandbox"
_PORT = 8787
_MIB = 1 << 20
_UPLOAD_MIB = 6
_SLOW_KIB = 900  # a second: time enough for a speed to be known half-way
_PARTS = 180
_AGE_S = 4.0
_FILES = {
    "README.md": "# Tea timer\n\nSays when the tea is ready.\n",
    ".gitignore": "build/\n*.log\n",
    "src/tea/__init__.py": "",
    "src/tea/brew.py": 'MINUTES = {"green": 2, "black": 4}\n',
    "tests/test_brew.py": "from tea.brew import MINUTES\n",
    "build/tea.bin": "made anew by a build\n",
    "debug.log": "started\n",
    "node_modules/left-pad/index.js": "module.exports = String\n",
    ".env": "API_TOKEN=stays-home\n",
}
_WORDS = ("water", "leaf", "green", "black", "minutes", "pot", "cup", "wait", "pour", "warm", "steep", "stir")


class SceneRig:
    """A home with a workspace and a configuration, and the emulator for it."""

    def __init__(self, home: Path, emulator: Emulator) -> None:
        self.home = home
        self.workspace = home / "tea"
        self.emulator = emulator
        self._daemon: subprocess.Popen[bytes] | None = None
        self._log = emulator.data_dir / "run.log"
        self._chance = random.Random(1)
        for path, content in _FILES.items():
            self.write(path, content)
        for number in range(_PARTS):
            words = self._chance.choices(_WORDS, k=60)
            self.write(f"src/tea/part{number % 12:02}/leaf{number:03}.py", f"# {' '.join(words)}\n")
        self.workspace.chmod(0o755)
        self.folder = home / ".config/syncd"
        self.folder.mkdir(parents=True, mode=0o700)

    def configure(self, **keys: object) -> None:
        """Write configuration and key; `sync__debounce_seconds=0.2` is that key."""
        values = {
            "workspace.path": str(self.workspace),
            "sandbox.id": _SANDBOX,
            "sandbox.base_url": self.emulator.base_url,
            "sync.debounce_seconds": 0.2,
            **{name.replace("__", "."): value for name, value in keys.items()},
        }
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
        (self.folder / "config.toml").write_text("".join(lines))
        (self.folder / "api-key").touch(mode=0o600)
        (self.folder / "api-key").write_text(self.emulator.api_key + "\n")

    def write(self, path: str, content: str | bytes) -> None:
        """Write one file of the workspace."""
        target = self.workspace / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def write_large(self) -> None:
        """Write incompressible files, so that an upload takes its time."""
        for number in range(2 * _UPLOAD_MIB):
            self.write(f"assets/photo{number:02}.jpg", self._chance.randbytes(_MIB // 2))

    def environment(self, **more: str) -> dict[str, str]:
        """Return the whole environment of the program."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / ".local/state"),
            "LANG": "C.UTF-8",
            "TERM": "xterm-color",
            "TZ": "UTC",
            "PYTHONPATH": str(_REPO),
            **more,
        }

    def run(self, *args: str) -> None:
        """Run `syncd ARGS` without a screen."""
        subprocess.run([*_SYNCD, *args], env=self.environment(), cwd=self.home, check=False, capture_output=True)

    def daemon(self) -> None:
        """Run `syncd run` until the end of the scene."""
        with self._log.open("wb") as log:
            self._daemon = subprocess.Popen(
                [*_SYNCD, "run"], env=self.environment(), cwd=self.home, stdin=subprocess.DEVNULL, stderr=log
            )

    def in_state(self, *states: str) -> None:
        """Wait for the daemon to be in one of these states."""
        file = Path(directories_for(str(self.workspace), self.environment()).state, "status.json")
        for _ in range(600):
            with suppress(OSError, ValueError):
                if json.loads(file.read_text())["state"] in states:
                    return
            _CLOCK.sleep(0.05)
        raise AssertionError(f"the daemon was never {' or '.join(states)}:\n{self._log.read_text()}")

    @contextmanager
    def terminal(self, *args: str, rows: int = 40) -> Iterator[Terminal]:
        """Give a terminal in which `syncd ARGS` was typed."""
        terminal = Terminal(rows=rows)
        terminal.show(f"\033[1m$ syncd {' '.join(args)}\033[0m\n")
        terminal.start([*_SYNCD, *args], self.environment(), self.home if args[0] == "init" else self.workspace)
        try:
            yield terminal
        finally:
            terminal.close()

    def shown(self, *args: str) -> pyte.Screen:
        """Return the screen at the end of `syncd ARGS`."""
        with self.terminal(*args) as terminal:
            terminal.finish()
            return terminal.screen

    def close(self) -> None:
        """End the daemon."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait()


@contextmanager
def scene_rig(folder: Path) -> Iterator[SceneRig]:
    """Give a rig in a folder that is empty or missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with _emulator(folder / ".cloud") as emulator:
        emulator.create_sandbox(_SANDBOX)
        rig = SceneRig(folder, emulator)
        try:
            yield rig
        finally:
            rig.close()


@contextmanager
def _emulator(folder: Path) -> Iterator[Emulator]:
    """Start at the same port each time, so that screenshots differ only with the program; at another if it is taken."""
    try:
        emulator = Emulator(folder, _PORT)
        emulator.start()
    except OSError:
        emulator = Emulator(folder)
        emulator.start()
    try:
        yield emulator
    finally:
        emulator.close()


def _status(rig: SceneRig) -> pyte.Screen:
    rig.configure()
    rig.daemon()
    rig.in_state("watching")
    rig.write("src/tea/brew.py", 'MINUTES = {"green": 2, "black": 4, "oolong": 3}\n')
    rig.in_state("debouncing", "snapshotting", "uploading", "initializing")
    rig.in_state("watching")
    _CLOCK.sleep(_AGE_S)
    return rig.shown("status")


def _retrying(rig: SceneRig) -> pyte.Screen:
    rig.configure(retry__first_delay_seconds=40, retry__max_delay_seconds=60)
    rig.run("push")
    rig.emulator.faults.script("any: 503 always")
    rig.write("README.md", "# Tea timer\n\nNew words.\n")
    rig.daemon()
    rig.in_state("retrying")
    _CLOCK.sleep(_AGE_S)
    return rig.shown("status")


def _watch(rig: SceneRig) -> pyte.Screen:
    rig.configure(sync__upload_limit_kib_per_second=_SLOW_KIB)
    rig.run("push")
    rig.write_large()
    rig.daemon()
    rig.in_state("uploading")
    with rig.terminal("status", "--watch") as terminal:
        terminal.until(_halfway, "an upload half done")
        return terminal.screen


def _check(rig: SceneRig) -> pyte.Screen:
    """Show `syncd check` with one warning: a clock that is not the server's."""
    rig.configure()
    rig.write_large()
    rig.write("deploy/server.pem", "a private key would be in here\n")
    rig.emulator.faults.script("any: skew 400 always")
    return rig.shown("check")


def _history(rig: SceneRig) -> pyte.Screen:
    rig.configure(retry__give_up_after_seconds=1, retry__first_delay_seconds=0.2)
    rig.run("push")
    for minutes in (3, 5):
        rig.write("src/tea/brew.py", f'MINUTES = {{"green": 2, "black": {minutes}}}\n')
        rig.run("push")
    rig.write("docs/plan.md", "# Plan\n")
    rig.emulator.faults.script("upload: 503 x9")
    rig.run("push")
    rig.emulator.faults.clear()
    rig.run("push")
    (rig.workspace / "docs/plan.md").unlink()
    rig.run("push", "--force")
    return rig.shown("history")


def _apply(rig: SceneRig) -> pyte.Screen:
    """Bring home what an agent did: new, changed and deleted files, a merge and a conflict."""
    rig.configure()
    rig.write("docs/brewing.md", "# Brewing\n\nBoil water.\n\nWait.\n\nPour.\n")
    rig.run("push")
    sandbox = rig.emulator.sandbox(_SANDBOX)
    assert sandbox is not None
    agent = Agent(sandbox.workspace)
    agent.write("docs/brewing.md", "# Brewing\n\nBoil fresh water.\n\nWait.\n\nPour.\n")
    rig.write("docs/brewing.md", "# Brewing\n\nBoil water.\n\nWait.\n\nPour, and drink.\n")
    agent.write("src/tea/brew.py", 'MINUTES = {"green": 2, "black": 5}\n')
    rig.write("src/tea/brew.py", 'MINUTES = {"green": 3, "black": 4}\n')
    agent.write("tests/test_brew.py", "from tea.brew import MINUTES\n\nassert MINUTES\n")
    agent.write("Makefile", "test:\n\tpytest\n")
    agent.delete("README.md")
    with rig.terminal("apply") as terminal:
        terminal.until(lambda text: "[y/d/N]:" in text, "the question")
        terminal.type("y\n")
        terminal.finish()
        return terminal.screen


_ANSWERS = ((r"[Dd]irectory[^\n]*: ?$", "tea"), (r"[Ss]andbox id[^\n]*: ?$", _SANDBOX), (r": ?$", ""))


def _init(rig: SceneRig) -> pyte.Screen:
    """Answer each question of `syncd init`, with Enter by default."""
    flags = ("--base-url", rig.emulator.base_url)
    with rig.terminal("init", *flags, rows=60) as terminal:
        while True:
            before = terminal.text
            try:
                terminal.until(lambda text, old=before: text != old and re.search(r"[:?>\]] ?$", text), "a question", 5)
            except AssertionError:
                terminal.finish()
                return terminal.screen
            answer = next((answer for asked, answer in _ANSWERS if re.search(asked, terminal.text)), "")
            if re.search(r"key", terminal.text.splitlines()[-1], re.IGNORECASE):
                answer = rig.emulator.api_key
            terminal.type(answer + "\n")


def _halfway(text: str) -> bool:
    """Wait until speed and time left are known and shown."""
    return bool(re.search(r"\b[456][0-9] ?%", text) and re.search(r"B/s", text))


@dataclass(frozen=True)
class Scene:
    """One screenshot: the file's name, its text alternative, and the function that plays it."""

    name: str
    title: str
    play: Callable[[SceneRig], pyte.Screen]


SCENES = (
    Scene("status", "syncd status: in sync, with the last sync and what is excluded", _status),
    Scene("status-retrying", "syncd status while the server does not answer: what failed and the next try", _retrying),
    Scene("status-watch", "syncd status --watch in the middle of an upload, with speed and time left", _watch),
    Scene("check", "syncd check: what is well, and what to do about what is not", _check),
    Scene("history", "syncd history: the last syncs, one of them failed", _history),
    Scene("apply", "syncd apply: the plan of what is taken, merged and in conflict, the question, the end", _apply),
    Scene("init", "syncd init: the questions it asks", _init),
)
