"""Unison with its file monitor, to a second Unison on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.peers.folders import Mirror
from tests.bench.peers.peer import Ground, Peer
from tests.bench.peers.processes import free_port, started
from tests.bench.peers.wire import Meter, forwarded

_WAITS_S = 0.5  # `delay` in its src/fsmonitor/watchercommon.ml


@contextmanager
def _running(ground: Ground) -> Iterator[Mirror]:
    meter = Meter()
    with started(ground.home, ground.environment(), ground.deadline) as processes:
        port = free_port()
        there = {"UNISON": str(ground.home / "there")}
        processes.start("unison", "-socket", str(port), "-listen", "127.0.0.1", env=there)
        processes.await_port(port)
        with forwarded(port, meter) as counted:
            target = f"socket://127.0.0.1:{counted}/{ground.target}"
            words = ("-batch", "-auto", "-confirmbigdel=false", "-repeat", "watch")
            processes.start("unison", str(ground.source), target, *words, env={"UNISON": str(ground.home / "here")})
            yield Mirror(ground, processes, meter)


UNISON = Peer(
    "Unison",
    ("unison", "unison-fsmonitor"),
    f"its own quiet time, {_WAITS_S:g} s; through a counting proxy",
    _running,
    waits_s=_WAITS_S,
)
