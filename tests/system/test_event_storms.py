"""Storms of changes by real programs: each ends with an equal sandbox, few uploads and bounded memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.repositories import committed, git
from tests.system.command import CLOCK, Running, works
from tests.system.rig import Rig
from tests.system.trees import tree

# inotify's queue, from inotify(7).
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
# What a daemon may have resident at its peak, in KiB, beyond what it had before the storm.
GROWTH_KIB = 64 << 10


@dataclass
class Storm:
    """The cost of a storm, from its first change to the equal sandbox; `grown_kib` is the peak's, beyond what was."""

    uploads: int = 0
    seconds: float = 0.0
    grown_kib: int = 0


@contextmanager
def storm(rig: Rig, daemon: Running) -> Iterator[Storm]:
    """Give the cost, once what was sent last equals the workspace."""
    bill, before_kib = Storm(), daemon.resident_kib()
    uploads, started_s = rig.count("upload"), CLOCK.monotonic_s()
    yield bill

    def is_calm() -> bool:
        shown, here = rig.shown(), {path for path in tree(rig.workspace) if not _is_gits(path)}
        return shown["state"] == "watching" and not shown["pending"] and here == set(rig.archived())

    rig.until(is_calm, "all to be sent, and nothing else")
    rig.converged(without=_is_gits)

    bill.seconds = CLOCK.monotonic_s() - started_s
    bill.uploads = rig.count("upload") - uploads
    bill.grown_kib = daemon.peak_kib() - before_kib


def _is_gits(path: str) -> bool:
    return path.split("/", maxsplit=1)[0] == ".git"


def _repository(rig: Rig, files: int) -> None:
    """Make two versions: a third of the files changed, a tenth deleted, a tenth new, a folder moved and replaced."""
    for number in range(files):
        rig.write(f"package{number % 40}/module{number % 7}/file{number}.txt", f"line {number}\n" * 20)
    committed(rig.workspace)
    git(rig.workspace, "checkout", "-q", "-b", "new")
    for number in range(0, files, 3):
        rig.write(f"package{number % 40}/module{number % 7}/file{number}.txt", f"edited {number}\n" * 20)
    for number in range(1, files, 10):
        (rig.workspace / f"package{number % 40}/module{number % 7}/file{number}.txt").unlink()
        rig.write(f"added/folder{number % 5}/file{number}.txt", f"new {number}\n" * 20)
    (rig.workspace / "package3").rename(rig.workspace / "moved")
    rig.write("package3", "a file where a folder was\n")
    git(rig.workspace, "add", "-A")
    git(rig.workspace, "commit", "-qm", "new")


def test_checkouts(rig: Rig) -> None:
    """Git switches between two versions of a tree, back and forth faster than it can be sent."""
    _repository(rig, 500)
    daemon = rig.up()
    with storm(rig, daemon) as bill:
        git(rig.workspace, "checkout", "-q", "main")
    assert bill.uploads <= 2 + bill.seconds / 5
    with storm(rig, daemon) as bill:
        for number in range(8):
            git(rig.workspace, "checkout", "-q", ("new", "main")[number % 2])
    assert bill.uploads <= 8 + 2 + bill.seconds / 5
    with storm(rig, daemon) as bill:
        git(rig.workspace, "checkout", "-q", "new")
    assert bill.grown_kib < GROWTH_KIB


def test_more_renames_than_the_queue_holds(rig: Rig) -> None:
    """Each rename is two events: with 17,000 the kernel drops some while the daemon is stopped."""
    count = 17_000
    if int(QUEUE.read_text()) >= 2 * count:
        pytest.skip("this machine's queue of events holds them all")
    rig.write("many/0")
    rig.fill(10)
    daemon = rig.up()
    with storm(rig, daemon) as bill:
        daemon.send(signal.SIGSTOP)  # so that the kernel's queue fills up
        for number in range(count):
            os.rename(rig.workspace / f"many/{number}", rig.workspace / f"many/{number + 1}")
        rig.write("folder0/after", "this event was dropped")
        daemon.send(signal.SIGCONT)
    assert bill.uploads <= 2


def _limited(limit: str, value: int) -> tuple[str, ...]:
    """Return a prefix that gives the daemon a user namespace with a limit of its own."""
    prefix = ("unshare", "--map-root-user", "sh", "-c", f'echo {value} >/proc/sys/user/{limit} && exec "$@"', "sh")
    if not works(*prefix):
        pytest.skip("user namespaces with limits of their own are not allowed here")
    return prefix


def _lift(daemon: Running, limit: str) -> None:
    """Apply the remedy while the daemon runs."""
    enter = ("nsenter", f"--target={daemon.pid}", "--user", "--preserve-credentials")
    subprocess.run([*enter, "sh", "-c", f"echo 100000 >/proc/sys/user/{limit}"], check=True)


@pytest.mark.parametrize(("limit", "value"), [("max_inotify_instances", 0), ("max_inotify_watches", 30)])
def test_a_storm_without_inotify(rig: Rig, limit: str, value: int) -> None:
    """Without inotify, or with few watches, all is found, and a warning says how until the limit is raised."""
    for number in range(200):
        rig.write(f"package{number % 100}/file{number}.txt", f"line {number}\n")
    daemon = rig.up(prefix=_limited(limit, value))
    with storm(rig, daemon) as bill:
        for number in range(200):
            rig.write(f"package{number % 100}/file{number}.txt", f"edited {number}\n")
        rig.ok("flush")  # which does not wait for the half minute between two polls
    assert bill.uploads <= 3 + bill.seconds / 2
    (warning,) = rig.status()["warnings"]
    assert f"user.{limit} is {value}" in warning
    assert f": sudo sysctl user.{limit}=" in warning
    assert "/etc/sysctl.d/" in warning
    if value:
        assert re.search(r"\d\d of 101 directories cannot be watched and are polled \(first: package\d+\)", warning)
    _lift(daemon, limit)
    rig.ok("flush")
    assert rig.status()["warnings"] == []
    with storm(rig, daemon) as bill:
        rig.write("package99/file99.txt", "heard\n")
    assert bill.uploads == 1
