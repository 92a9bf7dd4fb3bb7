"""A folder as the sandbox's workspace, its repository, and the client's part, which runs the program there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sandbox.agent_repository import AgentRepository
from syncd.sandbox.executions import Executions, Purpose, Running
from syncd.store.state_db import StateDb
from tests.clock import ScriptedClock
from tests.component.program_rig import environment_of, output_of
from tests.repositories import git, tree_of

TARGET = Target("https://api.example.org", "box", "us")


@dataclass(frozen=True)
class Sent:
    """What was sent of one path: a file, or a link with that content as its target."""

    content: bytes
    mode: int = 0o644
    is_link: bool = False

    @property
    def entry(self) -> Entry:
        if self.is_link:
            return Entry(Kind.SYMLINK, 0o777, 1, target=os.fsdecode(self.content))
        return Entry(Kind.FILE, self.mode, 1, len(self.content), digest=hashlib.sha256(self.content).digest())

    def put(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.is_link:
            path.symlink_to(os.fsdecode(self.content))
        else:
            path.write_bytes(self.content)
            path.chmod(self.mode)


def link(target: str) -> Sent:
    return Sent(os.fsencode(target), is_link=True)


def sent(content: str, mode: int = 0o644) -> Sent:
    return Sent(content.encode(), mode)


def manifest_of(files: Mapping[str, Sent]) -> Manifest:
    """Return the manifest of these paths, with the directories that they are in."""
    entries = {path: each.entry for path, each in files.items()}
    for path in files:
        while path := path.rpartition("/")[0]:
            entries[path] = Entry(Kind.DIRECTORY, 0o755, 1)
    return Manifest(entries)


class LocalRunner(Executions):
    """Runs the program at once, in a process of its own."""

    def __init__(self, workspace: Path, runs: Path) -> None:
        self._clock = ScriptedClock()
        self._waiter = Waiter(Interrupt(), self._clock)
        self.pending = None
        self._workspace = workspace
        self._runs = runs
        self.requests: list[bytes] = []
        self.outputs: list[str] = []
        self.after: Callable[[], None] = lambda: None

    def upload_url(self, purpose: Purpose, name: str) -> str:
        return name

    def upload(self, purpose: Purpose, url: str, files: Mapping[str, bytes]) -> None:
        self.requests.append(files["request.json"])
        self._files_sent = files

    def execute(self, purpose: Purpose, name: str) -> None:
        """Begin nothing: `_output` runs it."""

    def _output(self, running: Running, *_: object) -> str:
        folder = self._runs / str(len(self.requests))
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files_sent.items():
            (folder / name).write_bytes(content)
        self.outputs.append(self._run(folder))
        assert not (folder / "git").exists() or not self.outputs[-1]
        shutil.rmtree(folder)
        self.after()
        return self.outputs[-1]

    def _run(self, folder: Path) -> str:
        return output_of(folder, environment_of(self._workspace, folder))


class RepositoryRig:
    """A workspace there, what was sent, and the client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "there"
        self.workspace.mkdir(parents=True, exist_ok=True)
        (folder / "state").mkdir(exist_ok=True)
        self.files: dict[str, Sent] = {}
        self.clock = ScriptedClock()
        self.runner = LocalRunner(self.workspace, folder / "runs")
        self.base = Manifest()
        self._syncs = 0
        self.restart()

    def copied(self, folder: Path) -> RepositoryRig:
        """Return another such rig in `folder`, as this one was left."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        copy = RepositoryRig(folder)
        copy.files, copy.base, copy._syncs = dict(self.files), self.base, self._syncs
        copy.runner.requests = list(self.runner.requests)
        copy.restart()
        return copy

    def restart(self, revision: str = "") -> None:
        """Begin a new process of the client, which knows what is on the disk; else the record of another base is."""
        db, waiter = StateDb(str(self.folder / "state")), Waiter(Interrupt(), self.clock)
        self.client = AgentRepository(lambda: "main", self.runner, TARGET, db, waiter)
        self.client.recall(self.base, revision or str(self._syncs))

    def arrive(self, changes: Mapping[str, Sent | str | None]) -> None:
        """Have the sandbox get these paths as a sync brings them; None: it is removed."""
        for path, each in changes.items():
            if each is None:
                del self.files[path]
                (self.workspace / path).unlink(missing_ok=True)
                for above in Path(path).parents[:-1]:
                    if not any((self.workspace / above).iterdir()):
                        (self.workspace / above).rmdir()
        for path, each in changes.items():
            if each is not None:
                self.files[path] = each if isinstance(each, Sent) else sent(each)
                (self.workspace / path).unlink(missing_ok=True)
                self.files[path].put(self.workspace / path)
        self.base = manifest_of(self.files)
        self._syncs += 1

    def send(self, changes: Mapping[str, Sent | str | None]) -> None:
        """Sync these paths, and have the repository follow."""
        self.arrive(changes)
        self.follow()

    def follow(self) -> None:
        self.client.follow(self.base, str(self._syncs))

    def git(self, *arguments: str, codes: Iterable[int] = (0,)) -> str:
        return git(self.workspace, *arguments, codes=codes)

    def at(self, name: str) -> str:
        """Return the commit of a reference; empty if there is none."""
        return self.git("rev-parse", "--verify", "-q", name, codes=(0, 1)).strip()

    @property
    def status(self) -> str:
        return self.git("status", "--porcelain", "-z")

    @property
    def is_following(self) -> bool:
        """True if the agent's branch is at what was sent last."""
        return self.at("refs/syncd/home") == self.at("HEAD") and self.status == ""

    def check(self) -> None:
        """Have git find nothing wrong, and in `home` exactly what was sent."""
        assert self.client.warnings == []
        assert self.git("fsck", "--strict", "--no-dangling") == ""
        assert list((self.workspace / ".git").rglob("*.lock")) == []
        assert self.tree("home") == {
            path: ("120000" if each.is_link else "100755" if each.mode & 0o100 else "100644", each.content)
            for path, each in self.files.items()
        }

    def tree(self, commit: str) -> dict[str, tuple[str, bytes]]:
        return tree_of(self.workspace, commit)
