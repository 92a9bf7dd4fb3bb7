"""syncd beside the tools that people use instead: the same tree, edits and quiet time, one after the other."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tools.bench import trees
from tools.bench.daemons import edit_file
from tools.bench.measure import CLOCK, Bench, Figures, lacks, show
from tools.bench.peer import Ground, Peer, PeerFailed, Running, true_within
from tools.bench.tools import PEERS

_PROBES = 2  # the first may arrive with the tree, before the tool watches it
_PROBE_AGAIN_S = 5.0
_SETTLED_LOOK_S = 0.1
_SETTLED_LOOKS = 5
_IDLE_S_A_LOOK = 0.011  # a tick of its clock; a waiting tool may use that
_SETTLED_AFTER_S = 15.0  # that is enough, even of one that is never idle


def peers(bench: Bench) -> None:
    """Side by side with lsyncd, Syncthing, Unison, rsync, restic, git and a shell loop: an edit until it is there."""
    chosen = [peer for peer in PEERS if peer is PEERS[0] or peer.name.startswith(tuple(bench.asked.peers) or "")]
    for files in bench.asked.peer_files:
        tree = trees.packages(bench.folder("peers/tree"), files)
        probe, *victims = _with_files_to_edit(tree, bench.asked.peer_edits + 1)
        size = f"{files:,} files, {trees.content_bytes(tree) / 1e6:,.0f} MB"
        ours: list[Figures] = []
        for peer in chosen:
            try:
                found = _measured(bench, peer, tree, probe, victims)
            except Exception as failure:  # one tool that fails must not cost the figures of the others
                print(f"edit of {size}: {peer.name}: {failure}", flush=True)
                continue
            show(f"edit of {size}", ours or found, {peer.name: found} if ours else None)
            ours = ours or found
    shutil.rmtree(bench.scratch / "peers", ignore_errors=True)


def _measured(bench: Bench, peer: Peer, tree: Path, probe: str, victims: list[str]) -> list[Figures]:
    """Time an edit of each victim in a copy of the tree, after probe edits have arrived. Raises PeerFailed."""
    if missing := lacks(*peer.needs):
        raise PeerFailed(f"{' and '.join(missing)} not installed, skipped")
    folder, quiet_s = bench.folder("peers/one"), bench.asked.peer_quiet
    ground = Ground(folder / "source", folder / "target", folder / "home", quiet_s)
    shutil.copytree(tree, ground.source)
    for each in (ground.target, ground.home):
        each.mkdir()
    os.sync()  # or the kernel still writes the copy out while the first edits are timed
    took_s: list[float] = []
    with _limit(bench.asked.peer_limit), peer.running(ground) as running:
        for _ in range(_PROBES):
            _await_probe(running, ground.source / probe, probe)
            _settle(running)
        cpu_s, moved_bytes = running.processes.cpu_s(), running.moved_bytes()
        for victim in victims:
            written_s = edit_file(ground.source / victim)
            took_s.append(running.arrival(victim, bench.asked.peer_limit) - written_s)
            _settle(running)
        cpu_s, moved_bytes = running.processes.cpu_s() - cpu_s, running.moved_bytes() - moved_bytes
    # Times are of each edit; CPU and bytes, in which ticks and clean-ups are seldom, are means.
    mean: Figures = {"CPU": cpu_s / len(victims), "bytes": moved_bytes / len(victims)}
    waits_s = quiet_s if peer.waits_s is None else peer.waits_s
    return [{"beyond the quiet time": each - waits_s, **mean} for each in took_s]


def _await_probe(running: Running, path: Path, probe: str) -> None:
    """Edit the probe until an edit arrives: one that was made before the tool watches may be lost."""
    wait_s, arrived = _PROBE_AGAIN_S, False
    while not arrived:
        edit_file(path)
        arrived = true_within(wait_s, lambda: running.has_arrived(probe))
        wait_s *= 2


def _settle(running: Running) -> None:
    """Wait until the tool does nothing: what it does after the arrival belongs to the same edit."""
    ends_s = CLOCK.monotonic_s() + _SETTLED_AFTER_S
    idle_looks, before_s = 0, running.processes.cpu_s()
    while idle_looks < _SETTLED_LOOKS and CLOCK.monotonic_s() < ends_s:
        CLOCK.sleep(_SETTLED_LOOK_S)
        now_s = running.processes.cpu_s()
        idle_looks = idle_looks + 1 if now_s - before_s < _IDLE_S_A_LOOK else 0
        before_s = now_s


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Have all that waits for one tool fail after so many seconds."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise PeerFailed(f"not within {seconds:g} s")

    signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _with_files_to_edit(tree: Path, count: int) -> list[str]:
    """Add so many texts, each in a folder of its own, and return their paths: no tool excludes these."""
    paths = [f"edited/{number}/notes.txt" for number in range(count)]
    for path in paths:
        (tree / path).parent.mkdir(parents=True)
        (tree / path).write_text("".join(f"line {line} of {path}\n" for line in range(100)))
    return paths
