"""Syncs over a slow line: full archives and partial ones against `tar czf - | curl`, slowed down by the kernel.

Each measurement has a network of its own (network_namespaces(7); needs no root where user namespaces are allowed),
whose loopback takes packets of an ordinary size and passes those to a server at the line's speed (tc-htb(8)). Packets
from the server are not delayed, and there is no delay but that of the queue.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import null_server, trees
from tests.bench.daemon import DEADLINE_S, QUIET_S, SANDBOX, DaemonHome, TimedEmulator
from tests.bench.fixtures import Fixtures, lacks
from tests.bench.latency import edited
from tests.bench.stopwatch import CLOCK, REPO, shell
from tests.bench.table import Row, Skipped, compared

TREE = "M"
RIVAL = "tar czf - | curl -T -"
FULL, CHANGES = "full", "auto"
# The ports of servers and those of clients, so that the two directions can be told apart: 0x5000 to 0x53ff.
_SERVERS = "20480 21503"
_CLIENTS = "30000 60000"
_TO_SERVERS = ("match", "ip", "dport", "0x5000", "0xfc00")
_NETWORK = ("unshare", "--map-root-user", "--net")


@dataclass(frozen=True)
class Sent:
    """Seconds until the archive arrived, and until the sandbox was initialized (not for the rival), and bytes."""

    arrived_s: float
    initialized_s: float
    size_bytes: int


def _lay(mbit: float) -> None:
    """Make this network the slow line; servers are to be started before `_open_for_clients`."""
    for line in (
        ("ip", "link", "set", "lo", "mtu", "1500", "up"),
        ("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb", "default", "20", "r2q", "1000"),
        ("tc", "class", "add", "dev", "lo", "parent", "1:", "classid", "1:10", "htb", "rate", f"{mbit}mbit"),
        ("tc", "class", "add", "dev", "lo", "parent", "1:", "classid", "1:20", "htb", "rate", "10gbit"),
        ("tc", "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip", "u32", *_TO_SERVERS, "flowid", "1:10"),
    ):
        subprocess.run(line, check=True, stderr=subprocess.DEVNULL)
    _PORTS.write_text(_SERVERS)


def _open_for_clients() -> None:
    _PORTS.write_text(_CLIENTS)


_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _ours(archive: str, tree: Path, folder: Path) -> list[Sent]:
    """Measure a first sync and an edit, after an edit that makes the measured line and the proof known."""
    timed_emulator = TimedEmulator(folder / "cloud")
    with timed_emulator.emulator as emulator:
        emulator.create_sandbox(SANDBOX)
        _open_for_clients()
        keys = {"sync.archive": archive}
        daemon_home = DaemonHome(folder / "home", tree, emulator.base_url, emulator.api_key, keys)

        def sent(since_s: float) -> Sent:
            done = timed_emulator.next()
            size_bytes = next(
                entry.bytes_in for entry in reversed(emulator.request_log.entries()) if entry.op == "upload"
            )
            return Sent(done.uploaded_s - since_s, done.at_s - since_s, size_bytes)

        found = []
        began_s = CLOCK.monotonic_s()
        with daemon_home.daemon():
            found.append(sent(began_s))
            for victim in trees.victims(tree)[:2]:
                daemon_home.run("flush")
                timed_emulator.forget()
                found.append(sent(edited(tree, victim) + QUIET_S))
        return [found[0], found[-1]]


def _theirs(tree: Path) -> list[Sent]:
    """Measure the shell command, which is the same for a first sync and an edit."""
    with null_server.listening() as (url, arrived):
        _open_for_clients()
        began_s = CLOCK.monotonic_s()
        shell(f"tar czf - -C {tree} . | curl -sS -H Expect: -T - {url}")
        arrived_s = arrived.get(timeout=DEADLINE_S) - began_s
    size_bytes = int(subprocess.check_output(("sh", "-c", f"tar czf - -C {tree} . | wc -c")))
    return [Sent(arrived_s, arrived_s, size_bytes)] * 2


def _measured(who: str, tree: Path, folder: Path, mbit: float) -> list[Sent]:
    """Measure in a network of its own."""
    words = (*_NETWORK, sys.executable, "-m", __name__, who, str(tree), str(folder), str(mbit))
    said: list[dict[str, Any]] = json.loads(subprocess.check_output(words, cwd=REPO, timeout=10 * DEADLINE_S))
    return [Sent(**each) for each in said]


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """Slow line, held up by the kernel: first sync, one-line edit, whole and small archives, against tar | curl."""
    mbit = fixtures.sizes.uplink_mbit
    title = f"{mbit:g} Mbit/s, {TREE}"
    missing = lacks("unshare", "ip", "tc", "tar", "curl")
    if TREE not in fixtures.sizes.trees or missing:
        yield Skipped(title, missing or f"tree {TREE} is not asked for")
        return
    figures: dict[str, list[list[Sent]]] = {FULL: [], CHANGES: [], RIVAL: []}
    tree = fixtures.scratch / "line" / "tree"
    for _ in range(fixtures.sizes.rounds):
        for who, found in figures.items():
            shutil.copytree(fixtures.tree(TREE), tree)
            os.sync()
            found.append(_measured(who, tree, fixtures.folder("line/home"), mbit))
            shutil.rmtree(fixtures.scratch / "line")
    for who, number, what in ((FULL, 0, "first"), (FULL, 1, "edit, full"), (CHANGES, 1, "edit, auto")):
        ours, theirs = ([each[number] for each in figures[side]] for side in (who, RIVAL))
        for until in ("arrived", "initialized"):
            mine, other = ([getattr(each, f"{until}_s") for each in side] for side in (ours, theirs))
            yield compared(f"{title}: {what}: {until}", RIVAL, mine, other)
        mine, other = ([each.size_bytes / 1e3 for each in side] for side in (ours, theirs))
        yield compared(f"{title}: {what}: kB sent", RIVAL, mine, other, unit=_kilobytes)


def _kilobytes(value: float) -> str:
    return f"{value:,.1f}"


def main() -> None:
    """Print one measurement as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("who")
    parser.add_argument("tree", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("mbit", type=float)
    asked = parser.parse_args()
    _lay(asked.mbit)
    found = _theirs(asked.tree) if asked.who == RIVAL else _ours(asked.who, asked.tree, asked.folder)
    print(json.dumps([vars(each) for each in found]))


if __name__ == "__main__":
    main()
