"""The measurement of one tool: it is ready when edits arrive, and then each further edit is timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.latency import edited
from tests.bench.peers.peer import Deadline, Ground, Peer, Running
from tests.bench.peers.rules import Figures
from tests.bench.stopwatch import CLOCK

_PROBES = 2  # the first may arrive with the tree, before the tool watches it
_PROBE_AGAIN_S = 5.0
_SETTLED_LOOK_S = 0.1
_SETTLED_LOOKS = 5
_IDLE_S_A_LOOK = 0.011  # a tick of its clock; a waiting tool may use that
_SETTLED_AFTER_S = 15.0  # that is enough, even of one that is never idle


def measured(peer: Peer, ground: Ground, probe: str, victims: Sequence[str]) -> Figures:
    """Time an edit of each victim after probe edits have arrived. Raises PeerFailed."""
    with peer.running(ground) as running:
        for _ in range(_PROBES):
            _await_probe(running, ground.source, probe, ground.deadline)
            _settle(running)
        cpu_s, wire_bytes = running.cpu_s(), running.wire_bytes()
        took_s: list[float] = []
        for victim in victims:
            written_s = edited(ground.source, victim)
            arrived_s = running.arrival(victim, ground.deadline.left_s())
            if arrived_s is None:
                raise ground.deadline.missed(f"edit {len(took_s) + 1} of {len(victims)} arrives")
            took_s.append(arrived_s - written_s)
            _settle(running)
        sent = running.wire_bytes()
        return Figures(
            took_s,
            ground.quiet_s if peer.waits_s is None else peer.waits_s,
            running.cpu_s() - cpu_s,
            None if sent is None or wire_bytes is None else sent - wire_bytes,
        )


def _await_probe(running: Running, source: Path, probe: str, deadline: Deadline) -> None:
    """Edit the probe until an edit arrives: one that was made before the tool watches may be lost."""
    wait_s = _PROBE_AGAIN_S
    while deadline.left_s():
        edited(source, probe)
        if running.arrival(probe, min(wait_s, deadline.left_s())) is not None:
            return
        wait_s *= 2
    raise deadline.missed("a probe edit arrives")


def _settle(running: Running) -> None:
    """Wait until the tool does nothing: what it does after the arrival belongs to the same edit."""
    ends_s = CLOCK.monotonic_s() + _SETTLED_AFTER_S
    idle_looks, before_s = 0, running.cpu_s()
    while idle_looks < _SETTLED_LOOKS and CLOCK.monotonic_s() < ends_s:
        CLOCK.sleep(_SETTLED_LOOK_S)
        now_s = running.cpu_s()
        idle_looks = idle_looks + 1 if now_s - before_s < _IDLE_S_A_LOOK else 0
        before_s = now_s
