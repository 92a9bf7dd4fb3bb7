"""rsync to a daemon on loopback, as a run and behind lsyncd, which calls it for the paths that changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.peers.folders import Mirror, MirrorRun
from tests.bench.peers.peer import Ground, Peer
from tests.bench.peers.processes import Processes, free_port, started
from tests.bench.peers.wire import Meter, forwarded

_MODULE = "target"


@contextmanager
def _server(ground: Ground, meter: Meter) -> Iterator[tuple[Processes, str]]:
    """Give the processes, with an rsync daemon that writes to the target, and its URL."""
    config = ground.home / "rsyncd.conf"
    config.write_text(
        f"address = 127.0.0.1\nuse chroot = no\nreverse lookup = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n"
        f"[{_MODULE}]\npath = {ground.target}\nread only = no\n"
    )
    with started(ground.home, ground.environment(), ground.deadline) as processes:
        port = free_port()
        processes.start("rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={port}")
        processes.await_port(port)
        with forwarded(port, meter) as counted:
            yield processes, f"rsync://127.0.0.1:{counted}/{_MODULE}/"


@contextmanager
def _run(ground: Ground) -> Iterator[MirrorRun]:
    meter = Meter()
    with _server(ground, meter) as (processes, url):
        yield MirrorRun(ground, processes, meter, ("rsync", "-a", "--delete", f"{ground.source}/", url))


@contextmanager
def _lsyncd(ground: Ground) -> Iterator[Mirror]:
    meter = Meter()
    config = ground.home / "lsyncd.lua"
    with _server(ground, meter) as (processes, url):
        config.write_text(
            "settings { nodaemon = true }\n"
            f"sync {{ default.rsync, source = {json.dumps(str(ground.source))}, target = {json.dumps(url)}, "
            f"delay = {ground.quiet_s:g}, rsync = {{ archive = true }} }}\n"
        )
        processes.start("lsyncd", str(config))
        yield Mirror(ground, processes, meter)


LSYNCD = Peer("lsyncd", ("lsyncd", "rsync"), "rsync to its daemon through a counting proxy", _lsyncd)
RSYNC = Peer(
    "rsync -a", ("rsync",), "a run of the whole tree; to its daemon through a counting proxy", _run, waits_s=0.0
)
