"""Real daemons and the emulator, beside a simulation of as many laptops whose people do the same: figures side by side.

The people act faster than real ones, so that few minutes are enough. The API answers so many requests a second in
both, and others wait for their turn. There is one outage in the middle.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from syncd.core.clock import SystemClock
from syncd.emulator import Emulator, RequestRecord, When
from tests.bench.daemon import DaemonHome
from tests.fleet import figures
from tests.fleet.api_model import BUCKET_OPS, ApiModel, Load, Outage
from tests.fleet.events import Timeline
from tests.fleet.laptop import Arrivals, Laptop, Settings
from tests.fleet.rules import PRESENT
from tests.fleet.working_day import HOUR_S, Act, Person

_CLOCK = SystemClock()
_API_OPS = ("upload-url", "initialize", "execution-upload-url", "execute", "execution-logs", "dump", "get")
_FILES = 30
# All people together save so often, whatever their number: the machine has to carry the daemons and the emulator.
_PACE_OF_ALL = 160.0
# From the first act on.
_OUTAGE = Outage(120.0, 180.0)
_LENGTH_S = 300.0
# Twice what is asked for in a usual minute.
_CAPACITY_PER_S = 6.0
_START_DEADLINE_S = 600.0
# The emulator answers on loopback, in so small a part of the time that a service far away takes, and its programs have
# mostly ended at the first poll.
_LOOPBACK, _PROGRAM_S = 0.1, (0.05, 0.11)
# The real fleet's figures are one throw of the dice, the simulated ones the mean of so many.
_THROWS = 20
_QUIET_S = 1.0
# All daemons have just synced.
_URL_LEFT_S = 1700.0


@dataclass
class Seen:
    """What the API saw, and what the people waited for."""

    requests: array[int] = field(default_factory=lambda: array("l", bytes(8 * (int(_LENGTH_S) + 60))))
    sent: int = 0
    wasted: int = 0
    syncs: int = 0
    waits_s: list[float] = field(default_factory=list)
    beyond_s: list[float] = field(default_factory=list)

    def count(self, op: str, at_s: float, status: int | None) -> None:
        """Count a request at that second."""
        if not 0 <= at_s < _LENGTH_S:
            return
        self.sent += 1
        self.syncs += op == "initialize" and status == 200
        if op not in BUCKET_OPS:
            self.requests[int(at_s)] += 1
            self.wasted += status != 200

    def arrive(self, saved_s: float, arrived_s: float) -> None:
        """Count a change.

        Its wait counts before the outage only: with those of the queue after it, the median is between two heaps.
        """
        if arrived_s < _OUTAGE.start_s:
            self.waits_s.append(arrived_s - saved_s)
        if saved_s < _OUTAGE.end_s < arrived_s:
            self.beyond_s.append(arrived_s - _OUTAGE.end_s)

    def figures(self) -> dict[str, float]:
        """Return the figures that are compared."""
        before, after = (0.0, _OUTAGE.start_s), (_OUTAGE.end_s, _LENGTH_S)
        return {
            "syncs": self.syncs,
            "requests_a_sync": round(self.sent / max(1, self.syncs), 2),
            "api_requests": sum(self.requests),
            "working_rate_per_s": round(figures.mean(self.requests, *before), 2),
            "recovery_rate_per_s": round(figures.mean(self.requests, after[0], after[0] + 60), 2),
            "wasted": self.wasted,
            "wait_median_s": round(figures.quantile(self.waits_s, 0.5), 2),
            "wait_beyond_outage_mean_s": round(sum(self.beyond_s) / max(1, len(self.beyond_s)), 1),
            "wait_beyond_outage_max_s": round(max(self.beyond_s, default=0.0), 1),
        }


def _acts(number: int, laptops: int, seed: int) -> Iterator[tuple[float, Act]]:
    """Yield what a person does, by seconds from the beginning, as fast as so many people need to."""
    random = Random(f"{seed} person {number}")
    pace = max(1.0, _PACE_OF_ALL / laptops)
    for at_s, act in Person.of(random).acts(random, 11 * HOUR_S):
        if (at_s := (at_s - 11 * HOUR_S) / pace) >= _LENGTH_S:
            return
        if act in (Act.EDIT, Act.DELETE):
            yield at_s, act


def simulated(laptops: int, seed: int) -> dict[str, float]:
    """Return the figures of a simulation of so many laptops, whose people do the same each time."""
    throws = [_thrown(laptops, seed, throw).figures() for throw in range(_THROWS)]
    return {name: round(sum(each[name] for each in throws) / _THROWS, 2) for name in throws[0]}


def _thrown(laptops: int, seed: int, throw: int) -> Seen:
    seen, timeline, arrivals = Seen(), Timeline(), Arrivals()
    settings = Settings(follows=False, program_s=_PROGRAM_S)
    load = Load(_CAPACITY_PER_S)
    api = ApiModel(Random(f"{throw} api"), load, [_OUTAGE], length_s=_LENGTH_S, slowness=_LOOPBACK)
    for number in range(laptops):
        laptop = Laptop(number, timeline, api, Random(f"{throw} laptop {number}"), settings, PRESENT, arrivals)
        laptop.know(url_left_s=_URL_LEFT_S)
        laptop.start(0.0, settings.rescan_s)
        for at_s, act in _acts(number, laptops, seed):
            timeline.at(at_s, laptop.act, act)
    timeline.run(_LENGTH_S)
    seen.requests, seen.sent, seen.wasted = api.requests, api.ops.total(), sum(api.wasted)
    seen.syncs = arrivals.syncs.total()
    for saved_s, arrived_s in zip(arrivals.saved_s, arrivals.arrived_s, strict=True):
        seen.arrive(saved_s, arrived_s)
    return seen


class _Capacity:
    """Has requests to the emulator wait for their turn, but not those of an outage, which are refused at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_s = 0.0
        self.is_limited = False

    def wait(self, _: RequestRecord) -> None:
        """Wait for the turn of a request."""
        if not self.is_limited:
            return
        with self._lock:
            turn_s = max(self._free_s, _CLOCK.monotonic_s())
            self._free_s = turn_s + 1 / _CAPACITY_PER_S
        _CLOCK.sleep(max(0.0, turn_s - _CLOCK.monotonic_s()))


class _RealFleet:
    """Daemons with an emulator for all of them."""

    def __init__(self, folder: Path, laptops: int, stack: ExitStack) -> None:
        self._folder = folder
        self._laptops = laptops
        self._lock = threading.Lock()
        self._began_s = float("inf")
        self._filled: dict[str, int] = {}
        self._unsynced: dict[str, list[float]] = {}
        self.seen = Seen()
        self._emulator = stack.enter_context(Emulator(folder / "emulator", api_key="key", observer=self._saw))
        self._capacity = _Capacity()
        for op in _API_OPS:
            self._emulator.faults.on(op, When.BEFORE, self._capacity.wait)
        for number in range(laptops):
            self._start(number, stack)

    def _start(self, number: int, stack: ExitStack) -> None:
        name = f"box{number}"
        self._emulator.create_sandbox(name)
        workspace, home = self._folder / name, self._folder / f"home{number}"
        workspace.mkdir()
        for file in range(_FILES):
            (workspace / f"file{file}").write_text(f"{number} {file}\n")
        keys = {"sandbox.id": name, "sync.debounce_seconds": _QUIET_S}
        DaemonHome(home, workspace, self._emulator.base_url, keys=keys)
        environ = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(home)}
        log = stack.enter_context((home / "log").open("wb"))
        daemon = subprocess.Popen([sys.executable, "-m", "syncd", "run"], env=environ, stdout=log, stderr=log)
        stack.callback(_end, daemon)

    def wait_filled(self) -> None:
        """Wait until all sandboxes have the first snapshot, and have proved that they take partial ones."""
        ends_s = _CLOCK.monotonic_s() + _START_DEADLINE_S
        while sum(count >= 2 for count in self._filled.values()) < self._laptops:
            if _CLOCK.monotonic_s() > ends_s:
                raise SystemExit(f"only {len(self._filled)} of {self._laptops} daemons have synced")
            _CLOCK.sleep(0.5)
        _CLOCK.sleep(10.0)  # the looks of the last proofs

    def run(self, seed: int) -> None:
        """Do what the people do, with the outage."""
        acts = [(at_s, number, act) for number in range(self._laptops) for at_s, act in self._of(number, seed)]
        acts = sorted([*acts, (_OUTAGE.start_s, -1, "down"), (_OUTAGE.end_s, -1, "up"), (_LENGTH_S, -1, "end")])
        self._began_s, self._capacity.is_limited = _CLOCK.monotonic_s(), True
        for at_s, number, act in acts:
            _CLOCK.sleep(max(0.0, self._began_s + at_s - _CLOCK.monotonic_s()))
            if number >= 0:
                self._act(number, act)
            elif act == "down":
                self._capacity.is_limited = False
                self._emulator.faults.script(*(f"{op}: 503 always" for op in _API_OPS))
            else:
                self._emulator.faults.clear()
                self._capacity.is_limited = True

    def _of(self, number: int, seed: int) -> Iterator[tuple[float, str]]:
        for at_s, act in _acts(number, self._laptops, seed):
            yield at_s, act.name

    def _act(self, number: int, act: str) -> None:
        name = f"box{number}"
        files = sorted((self._folder / name).iterdir())
        file = files[len(self._unsynced.get(name, ())) % len(files)]
        with self._lock:
            self._unsynced.setdefault(name, []).append(self._now_s())
        if act == Act.DELETE.name and len(files) > _FILES // 2:
            file.unlink()
        else:
            file.write_text(f"{file.read_text()}{self._now_s()}\n")

    def _now_s(self) -> float:
        return _CLOCK.monotonic_s() - self._began_s

    def _saw(self, entry: RequestRecord) -> None:
        now_s = self._now_s()
        with self._lock:
            self.seen.count(entry.op, now_s - entry.seconds, entry.status)
            if entry.op != "initialize" or entry.status != 200 or entry.sandbox is None:
                return
            self._filled[entry.sandbox] = self._filled.get(entry.sandbox, 0) + 1
            changes = self._unsynced.get(entry.sandbox, [])
            arrived = [saved_s for saved_s in changes if saved_s < now_s - entry.seconds - 0.1]
            for saved_s in arrived:
                self.seen.arrive(saved_s, now_s)
            self._unsynced[entry.sandbox] = changes[len(arrived) :]


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(30.0)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def real(laptops: int, seed: int) -> Seen:
    """Return what so many real daemons did."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, ExitStack() as stack:
        fleet = _RealFleet(Path(folder), laptops, stack)
        fleet.wait_filled()
        fleet.run(seed)
    return fleet.seen


def compare(laptops: int, seed: int, *, as_json: bool) -> None:
    """Print the figures of both, and by how much the simulation is off."""
    theirs, ours = real(laptops, seed).figures(), simulated(laptops, seed)
    table: dict[str, Any] = {
        name: {"real": theirs[name], "simulated": ours[name], "off": _share(ours[name], theirs[name])}
        for name in theirs
    }
    if as_json:
        print(json.dumps({"laptops": laptops, **table}, indent=1))
        return
    print(f"{f'{laptops} daemons':<28}{'real':>10}{'simulated':>12}{'off':>8}")
    for name, row in table.items():
        print(f"{name:<28}{row['real']:>10,}{row['simulated']:>12,}{row['off']:>8.0%}")


def _share(ours: float, theirs: float) -> float:
    return round(ours / theirs - 1, 3) if theirs else 0.0
