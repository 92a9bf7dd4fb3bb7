"""One workspace, one emulated sandbox, and the real command between them, in a home of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from syncd.core.directories import directories_for
from tests.agent import Agent
from tests.emulator import Emulator, RequestRecord, When
from tests.recorded import records
from tests.system.command import SYNCD, TIMEOUT_S, Finished, Found, Running, run_command, wait_until
from tests.system.terminal import COLUMNS, Terminal
from tests.system.trees import Tree, lacking, names_in, tree

REPO = Path(__file__).resolve().parents[2]
KEY = "key-that-nobody-may-see"
SANDBOX = "box"
# What the product waits for in earnest, made short; a test that needs another value says so.
FAST: dict[str, object] = {
    "sync.debounce_seconds": 0.2,
    "sync.max_wait_seconds": 5.0,
    "retry.first_delay_seconds": 0.1,
    "retry.max_delay_seconds": 0.5,
    "retry.give_up_after_seconds": 30,
}
# Most tests are about one step of a sync, count its requests or hold one back: without a look, a proof and removals, a
# sync is an upload and an initialize. A test of what the sandbox's side does starts from `DEFAULTS`. In neither
# the daemon looks by itself: a test asks for that.
SIMPLE: dict[str, object] = {
    "sandbox.follow_seconds": 0,
    "sandbox.deletions": "keep",
    "sandbox.agent_changes": "overwrite",
    "sync.archive": "full",
}
DEFAULTS: dict[str, object] = {
    "sandbox.deletions": "mirror",
    "sandbox.agent_changes": "save",
    "sync.archive": "auto",
}
_DIES = """
import os, sys
from syncd.cli import main
from syncd.store.state_db import StateDb
commit, left = StateDb._commit, [int(sys.argv.pop(1))]
def dies(db, connection):
    left[0] -= 1
    if not left[0]:
        os._exit(9)
    commit(db, connection)
StateDb._commit = dies
main()
"""
_SIGNED = re.compile(r"(?i)x-goog-signature|[0-9a-f]{200}")


class Rig:
    """Starts, calls and stops the command, sets faults, and reads what arrived."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self.emulator = emulator
        self.sandbox = emulator.create_sandbox(SANDBOX)
        self.home = folder / "home"
        self.workspace = self.home / "work"
        self.config_file = self.home / ".config/syncd/config.toml"
        self.key_file = self.home / ".config/syncd/api-key"
        self.environ: dict[str, str] = {}
        self.daemons: list[Running] = []
        self._finished: list[Finished] = []
        self._output = folder / "output"
        for path in (self.workspace, self.config_file.parent, self._output):
            path.mkdir(parents=True)
        self.write_key(emulator.api_key)
        self.configure()

    # -- what a person sets up

    def configure(self, keys: Mapping[str, object] | None = None) -> None:
        """Write the configuration: `table.key` to value, over the test defaults; what acquires has no id."""
        values = {
            "workspace.path": str(self.workspace),
            "sandbox.id": SANDBOX,
            "sandbox.base_url": self.emulator.base_url,
            "sandbox.api_key_file": str(self.key_file),
            **FAST,
            **SIMPLE,
            **(keys or {}),
        }
        if any(name.startswith("sandbox.acquire.") for name in values):
            del values["sandbox.id"]
        _replace(self.config_file, as_toml(values))

    def further(self, name: str, workspace: Path, sandbox: str, base_url: str = "") -> Path:
        """Write a configuration like this one for another workspace, which is made."""
        workspace.mkdir(parents=True, exist_ok=True)
        text = self.config_file.read_text().replace(f'"{self.workspace}"', f'"{workspace}"')
        text = text.replace(f'"{SANDBOX}"', f'"{sandbox}"')
        file = self.config_file.parent / name
        _replace(file, text.replace(self.emulator.base_url, base_url) if base_url else text)
        return file

    def bare(self) -> None:
        """Remove configuration and key."""
        self.config_file.unlink()
        self.key_file.unlink()

    def write_key(self, key: str) -> None:
        """Write a key into the key file as an editor does, by a new file."""
        _replace(self.key_file, f"{key}\n")

    def write(self, path: str, content: str | bytes = "text\n") -> None:
        """Write a file of the workspace, with the folders above it."""
        target = os.path.join(self.workspace, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())

    def fill(self, count: int) -> None:
        """Write so many small files that differ."""
        for number in range(count):
            self.write(f"folder{number % 7}/file{number:03}.txt", f"content {number}\n")

    # -- the product

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the command's processes."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_STATE_HOME": str(self.home / ".local/state"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            **self.environ,
        }

    def start(self, *args: str, prefix: Sequence[str] = ()) -> Running:
        """Start `syncd run` as a process."""
        output = self._output / f"run{len(self.daemons)}"
        daemon = Running(("run", *args), self.environment(), self.home, output, prefix)
        self.daemons.append(daemon)
        return daemon

    def up(self, *args: str, prefix: Sequence[str] = ()) -> Running:
        """Start `syncd run`, and wait for its first sync."""
        initialized = self.count("initialize", 200)
        daemon = self.start(*args, prefix=prefix)
        self.until(lambda: self.count("initialize", 200) > initialized, "the first sync")
        self.in_state("watching")
        return daemon

    def watch(self) -> Running:
        """Start `syncd run`, and wait until it watches."""
        daemon = self.start()
        self.in_state("watching")
        return daemon

    def with_slow_git(self) -> tuple[Path, Path]:
        """Give all commands a git that makes the first of these files, and does not end while there is the other."""
        asked, hold, git = self.home / "asked", self.home / "hold", self.home / "bin/git"
        git.parent.mkdir()
        git.write_text(f"#!/bin/sh\n: >{asked}\nwhile [ -e {hold} ]; do sleep 0.02; done\nexit 1\n")
        git.chmod(0o755)
        self.environ["PATH"] = f"{git.parent}:{self.environment()['PATH']}"
        return asked, hold

    def kill(self) -> None:
        """Send SIGKILL to the last process."""
        self.daemons[-1].kill()

    def restart(self) -> Running:
        """Kill the last process, start another one, and wait until it watches."""
        self.kill()
        daemon = self.start()
        self.until(lambda: (self.shown().get("pid"), self.shown()["state"]) == (daemon.pid, "watching"), "a restart")
        return daemon

    def run(self, *args: str, prefix: Sequence[str] = (), place: Path | None = None) -> Finished:
        """Run `syncd ARGS` to its end, typed in that place."""
        finished = run_command(args, self.environment(), place or self._place(args[0]), prefix)
        self._finished.append(finished)
        return finished

    def ok(self, *args: str) -> Finished:
        """Run `syncd ARGS`, which must succeed."""
        finished = self.run(*args)
        assert finished.code == 0, f"{finished}\n{self.report()}"
        return finished

    def dies_at(self, commit: int, *args: str) -> int:
        """Run `syncd ARGS` in the workspace, which dies right before that commit, and return its exit code: 9 then."""
        command = [sys.executable, "-c", _DIES, str(commit), *args]
        return subprocess.run(command, env=self.environment(), cwd=self.workspace, check=False).returncode

    def background(self, *args: str) -> Running:
        """Start `syncd ARGS` as a process, which is stopped at the end."""
        output = self._output / f"{args[0]}{len(self.daemons)}"
        running = Running(args, self.environment(), self._place(args[0]), output)
        self.daemons.append(running)
        return running

    @contextmanager
    def terminal(
        self,
        *args: str,
        columns: int = COLUMNS,
        prefix: Sequence[str] = (),
        place: Path | None = None,
        **environ: str,
    ) -> Iterator[Terminal]:
        """Type `syncd ARGS` in that place or in the workspace, on a terminal of its own."""
        with closing(Terminal(columns)) as terminal:
            terminal.start([*prefix, *SYNCD, *args], self.environment() | environ, place or self.workspace)
            yield terminal

    @contextmanager
    def piped(self, *args: str) -> Iterator[subprocess.Popen[bytes]]:
        """Type `syncd ARGS` with stdout and stderr in pipes that the test reads."""
        with subprocess.Popen(
            [*SYNCD, *args],
            env=self.environment(),
            cwd=self._place(args[0]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _place(self, command: str) -> Path:
        """Return where the command is typed: in the workspace, if it may write into it."""
        return self.workspace if command in ("apply", "resolve", "saved") else self.home

    def status(self) -> dict[str, Any]:
        """Return the output of `syncd status --json`."""
        document: dict[str, Any] = json.loads(self.ok("status", "--json").out)
        return document

    def saved(self) -> list[dict[str, Any]]:
        """Return the saved versions, the newest first."""
        rows: list[dict[str, Any]] = json.loads(self.ok("saved", "--json").out)["saved"]
        return rows

    def restored(self, path: str) -> str:
        """Return the content of that path in the newest saved version."""
        folder = self.home / f"restored{len(list(self.home.iterdir()))}"
        self.ok("saved", "restore", self.saved()[0]["id"], str(folder))
        return (folder / path).read_text()

    @property
    def state_folder(self) -> Path:
        """Return the workspace's folder of state, existing or not."""
        return Path(directories_for(str(self.workspace), self.environment()).state)

    def shown(self) -> dict[str, Any]:
        """Return the status document on disk: fast, but only `status` says whether it is valid."""
        try:
            document: dict[str, Any] = json.loads((self.state_folder / "status.json").read_text())
        except (OSError, ValueError):
            return {"state": "unknown", "warnings": []}
        return document

    # -- the cloud

    @property
    def agent(self) -> Agent:
        """Return the agent in the sandbox."""
        return Agent(self.sandbox.workspace)

    def once(self, op: str, when: When | str, act: Callable[[], object]) -> threading.Event:
        """Act at that moment of the next request of `op`, which waits for it. The event is set when it is done."""
        pending = threading.Lock()
        done = threading.Event()

        def hook(_: RequestRecord) -> None:
            if pending.acquire(blocking=False):
                act()
                done.set()

        self.emulator.faults.on(op, when, hook)
        return done

    def held(self, op: str) -> threading.Event:
        """Hold the next request of `op` until the event is set."""
        go_on = threading.Event()
        self.once(op, When.BEFORE, lambda: go_on.wait(TIMEOUT_S))
        return go_on

    def faults(self, *lines: str) -> None:
        """Set faults, in the emulator's language."""
        self.emulator.faults.script(*lines)

    def count(self, op: str, status: int | None = None) -> int:
        """Return the number of requests of that kind."""
        return self.emulator.request_log.count(op, status)

    def archive(self) -> Path:
        """Return the archive that was uploaded last."""
        return self.emulator.archive()

    def archived(self) -> list[str]:
        """Return the names in the archive that was uploaded last."""
        while True:
            try:
                return names_in(self.archive())
            except FileNotFoundError:  # a newer one has just replaced it
                continue

    # -- waiting and seeing

    def until(self, condition: Callable[[], Found], what: str) -> Found:
        """Wait for the condition to hold, and return its value. Fails with a report after the timeout."""
        return wait_until(condition, lambda: f"{what}\n{self.report()}")

    def in_state(self, *states: str) -> None:
        """Wait for the daemon to be in one of these states."""
        self.until(lambda: self.shown()["state"] in states, f"state {' or '.join(states)}")

    def status_in(self, *states: str) -> dict[str, Any]:
        """Wait for the daemon to be in one of these states, and return the output of `syncd status --json`."""
        self.in_state(*states)
        return self.status()

    def there(self) -> Tree:
        """Return the files in the sandbox."""
        return tree(self.sandbox.workspace)

    def converged(self, without: Callable[[str], bool] = lambda _: False) -> Tree:
        """Wait until the sandbox equals the workspace, and return the files. `without`: the excluded ones."""
        missing: list[str] = []
        wanted: Tree = {}

        def equal() -> bool:
            nonlocal wanted
            wanted = {path: what for path, what in tree(self.workspace).items() if not without(path)}
            try:
                missing[:] = lacking(wanted, self.there())
            except FileNotFoundError:  # it is extracting
                return False
            return not missing

        self.until(equal, f"the sandbox to hold the workspace; it lacks {missing[:5]}")
        return wanted

    def report(self) -> str:
        """Return a report for a failed test."""
        requests = "\n".join(f"  {entry}" for entry in self.emulator.request_log.entries()[-25:])
        daemons = "\n".join(
            f"--- process {daemon.pid}, exit {daemon.code}\n{daemon.err[-3000:]}" for daemon in self.daemons
        )
        return f"status: {self.shown()}\nrequests:\n{requests}\n{daemons}"

    # -- the end

    def close(self) -> None:
        """End every process."""
        for daemon in self.daemons:
            if daemon.code is None:
                daemon.kill()

    def leaks(self) -> list[str]:
        """Return where a key, a signature or a traceback was shown. Call it after `close`."""
        outputs = {f"output of process {daemon.pid}": daemon.out + daemon.err for daemon in self.daemons}
        outputs |= {f"output of {' '.join(done.args)}": done.out + done.err for done in self._finished}
        outputs["the argument lists"] = os.fsdecode(b"\n".join(daemon.shown_arguments for daemon in self.daemons))
        found = [f"{name}: {why}" for name, text in outputs.items() if (why := _secret(text))]
        found += [f"{name}: a traceback" for name, text in outputs.items() if "Traceback (most recent" in text]
        for path in self.home.rglob("*"):
            status = path.lstat()
            if path.is_relative_to(self.workspace):  # the user's own files may hold anything
                continue
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                why = _secret(path.read_bytes().decode("latin-1")) if status.st_size < 1 << 24 else ""
                if why:
                    found.append(f"{path}, which others can read: {why}")
        return found

    def undocumented(self) -> list[str]:
        """Return the files and records of the state that docs/internals.md does not name. Call it after `close`."""
        if not self.state_folder.is_dir():
            return []
        # What a kill leaves beside a file; the database's own files are SQLite's.
        found = {re.sub(r"(\.new|\.damaged|-wal|-shm)+$", "", path.name) for path in self.state_folder.iterdir()}
        names = records(self.state_folder) - {"unanswered"}  # the name of manifests
        return sorted(name for name in found | names if not _DOCUMENTED.fullmatch(name))


def as_toml(values: Mapping[str, object]) -> str:
    """Return a configuration of `table.key` to value."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def _documented() -> re.Pattern[str]:
    """Return what matches each name of docs/internals.md, State, in which capitals stand for any name."""
    page = (REPO / "docs/internals.md").read_text("utf-8")
    names = re.findall("`([^`]+)`", page.partition("\n## State\n")[2].partition("\n## ")[0])
    return re.compile("|".join(re.sub("[A-Z]{3,}", ".+", re.escape(name)) for name in names))


_DOCUMENTED = _documented()


def _secret(text: str) -> str:
    if KEY in text:
        return "the key"
    return "a signed URL" if _SIGNED.search(text) else ""


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)


def emptied(folder: Path, last: Sequence[str] = ()) -> None:
    """Remove everything in a folder, some names last: a look meanwhile takes what is gone for the agent's work."""
    for path in sorted(folder.iterdir(), key=lambda path: last.index(path.name) if path.name in last else -1):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
