"""`restic backup` and `git push`, run after each edit, to a repository on the same disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.peers.peer import Ground, Peer, PeerFailed
from tests.bench.peers.processes import Processes, started
from tests.bench.trees import content_bytes

_BRANCH = "main"
_PUSH = f"git add -A && git commit -qm 'one edit' && git push -q origin HEAD:{_BRANCH}"


class _Restic:
    def __init__(self, ground: Ground, processes: Processes) -> None:
        self._ground = ground
        self._processes = processes
        self._repository = ("restic", "-q", "-r", str(ground.target))
        processes.output(*self._repository, "init")

    def arrival(self, victim: str, within_s: float) -> float:
        ended_s = self._processes.run(*self._repository, "backup", str(self._ground.source))
        path = self._ground.source / victim
        if self._processes.output(*self._repository, "dump", "latest", str(path)) != path.read_bytes():
            raise PeerFailed(f"restic ended well, but its last snapshot holds another version of {victim}")
        return ended_s

    def cpu_s(self) -> float:
        return self._processes.cpu_s()

    def wire_bytes(self) -> int:
        return content_bytes(self._ground.target)


class _Git:
    def __init__(self, ground: Ground, processes: Processes) -> None:
        self._ground = ground
        self._processes = processes
        self._pushed_bytes = 0
        self._git("init", "-q", "--bare", str(ground.target))
        self._git("init", "-q")
        self._git("remote", "add", "origin", str(ground.target))
        for key, value in (("name", "x"), ("email", "x@example.org")):
            self._git("config", "--global", f"user.{key}", value)
        for key in ("gc.auto", "maintenance.auto"):  # they would go on in the background, in a session of their own
            self._git("config", "--global", key, "0")
        self._git("commit", "-qm", "nothing yet", "--allow-empty")  # what the next commit's pack is made against

    def _git(self, *words: str, given: bytes = b"") -> bytes:
        return self._processes.output("git", *words, cwd=self._ground.source, given=given)

    def arrival(self, victim: str, within_s: float) -> float:
        ended_s = self._processes.run("sh", "-c", _PUSH, cwd=self._ground.source)
        there = self._git("--git-dir", str(self._ground.target), "show", f"{_BRANCH}:{victim}")
        if there != (self._ground.source / victim).read_bytes():
            raise PeerFailed(f"git ended well, but the repository holds another version of {victim}")
        new = b"HEAD\n^HEAD~1\n"
        self._pushed_bytes += len(self._git("pack-objects", "--revs", "--thin", "--stdout", "-q", given=new))
        return ended_s

    def cpu_s(self) -> float:
        return self._processes.cpu_s()

    def wire_bytes(self) -> int:
        return self._pushed_bytes


@contextmanager
def _restic(ground: Ground) -> Iterator[_Restic]:
    environment = {**ground.environment(), "RESTIC_PASSWORD": "x"}
    with started(ground.home, environment, ground.deadline) as processes:
        yield _Restic(ground, processes)


@contextmanager
def _git(ground: Ground) -> Iterator[_Git]:
    with started(ground.home, ground.environment(), ground.deadline) as processes:
        yield _Git(ground, processes)


RESTIC = Peer("restic backup", ("restic",), "a run; bytes: how much its repository grows", _restic, waits_s=0.0)
GIT = Peer("git push", ("git",), "add -A, commit, push: a run; bytes: the thin pack", _git, waits_s=0.0)
