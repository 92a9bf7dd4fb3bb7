"""A loop of the shell: it waits for a change and for the quiet time, packs everything and sends it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.bench import inotifywait, null_server
from tests.bench.peers.peer import Ground, Peer, true_within
from tests.bench.peers.processes import Processes, started
from tests.bench.peers.wire import Meter, forwarded

_LOOP = (
    'while inotifywait -q -r -e "$EVENTS" "$TREE"; do sleep "$QUIET_S"; '
    'tar czf - -C "$TREE" . | curl -sS -T - "$URL"; done'
)


class _Loop:
    def __init__(self, processes: Processes, meter: Meter, arrived: queue.SimpleQueue[float]) -> None:
        self._processes = processes
        self._meter = meter
        self._arrived = arrived

    def arrival(self, victim: str, within_s: float) -> float | None:
        def arrived() -> bool:
            self._processes.check()
            return not self._arrived.empty()

        while not self._arrived.empty():
            self._arrived.get()  # of an edit before
        return self._arrived.get() if true_within(within_s, arrived) else None

    def cpu_s(self) -> float:
        return self._processes.cpu_s()

    def wire_bytes(self) -> int:
        return self._meter.count


@contextmanager
def _running(ground: Ground) -> Iterator[_Loop]:
    meter = Meter()
    with (
        null_server.listening() as (url, arrived),
        forwarded(urlsplit(url).port or 0, meter) as counted,
        started(ground.home, ground.environment(), ground.deadline) as processes,
    ):
        settings = {
            "EVENTS": inotifywait.EVENTS,
            "TREE": str(ground.source),
            "QUIET_S": f"{ground.quiet_s:g}",
            "URL": f"http://127.0.0.1:{counted}/archive.tar.gz",
        }
        processes.start("sh", "-c", _LOOP, env=settings)
        yield _Loop(processes, meter, arrived)


SHELL_LOOP = Peer(
    "tar | curl", ("inotifywait", "tar", "curl"), "whole archive received, not unpacked; counting proxy", _running
)
