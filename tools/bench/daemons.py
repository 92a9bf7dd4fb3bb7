"""The real commands against the emulator: an edit, a diff, an idle daemon, a start."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.emulator import Emulator
from tests.emulator.faults import API_OPS
from tests.system.rig import DEFAULTS, KEY, Rig
from tools.bench import trees
from tools.bench.measure import CLOCK, Bench, Figures, shell, show
from tools.bench.wire import Meter, emulator_counted

_QUIET_S = 0.05
_CHANGED_THERE = 3
_KEYS: dict[str, dict[str, object]] = {
    "auto, save": {},
    "auto, overwrite": {"sandbox.agent_changes": "overwrite"},
    "full, save": {"sync.archive": "full"},  # one edit, as it takes the longest
}


def configured(folder: Path, tree: Path, emulator: Emulator, keys: dict[str, object]) -> Rig:
    """Return a home whose workspace is the tree."""
    rig = Rig(folder, emulator)
    rig.workspace = tree
    rig.configure({**DEFAULTS, "sync.debounce_seconds": _QUIET_S, **keys})
    return rig


@contextmanager
def _synced(folder: Path, tree: Path, keys: dict[str, object]) -> Iterator[tuple[Rig, Meter]]:
    """Give a daemon that has synced the tree and an edit, so that it knows the sandbox and the line."""
    meter = Meter()
    with emulator_counted(meter), Emulator(folder / "cloud", api_key=KEY) as emulator:
        rig = configured(folder, tree, emulator, keys)
        try:
            rig.up()
            _edited(rig, meter, trees.victims(tree)[0])
            yield rig, meter
        finally:
            rig.close()


def edit_file(path: Path) -> float:
    """Add a line to the file, and return the monotonic time of the write."""
    with open(path, "a") as file:
        file.write("#\n")
    return CLOCK.monotonic_s()


def _edited(rig: Rig, meter: Meter, victim: str) -> Figures:
    """Add a line to a file, and wait until it is in the sandbox."""
    rig.ok("flush")
    count, asked, moved = rig.count("initialize", 200), len(rig.emulator.request_log.entries()), meter.count
    cpu_s = rig.daemons[-1].cpu_s()
    edit_file(rig.workspace / victim)
    written_s = CLOCK.wall_s()
    rig.until(lambda: rig.count("initialize", 200) > count, "an edit")
    log = rig.emulator.request_log.entries()
    done = next(entry for entry in reversed(log) if entry.op == "initialize")
    return {
        "beyond the quiet time": done.started_at + done.seconds - written_s - _QUIET_S,
        "CPU": rig.daemons[-1].cpu_s() - cpu_s,
        "requests": sum(entry.op in API_OPS for entry in log[asked:]),
        "bytes": meter.count - moved,
        "memory": rig.daemons[-1].resident_kib() * 1024,
    }


def _diffed(rig: Rig, meter: Meter) -> Figures:
    """Run `syncd diff` to its end."""
    asked, moved = len(rig.emulator.request_log.entries()), meter.count
    done = rig.run("diff")
    assert done.code == 1, done
    requests = sum(entry.op in API_OPS for entry in rig.emulator.request_log.entries()[asked:])
    return {"wall": done.seconds, "requests": requests, "bytes": meter.count - moved}


def edit(bench: Bench) -> None:
    """One-line edit until it is initialized: time, CPU, requests, bytes and the daemon's memory; a diff of three."""
    for letter in bench.letters("S", "M", "L"):
        victims = [victim for victim in trees.victims(bench.tree(letter)) if not victim.endswith(".pyc")]
        chosen = [victims[(7 * number + 1) % len(victims)] for number in range(bench.asked.edits)]
        for name, keys in _KEYS.items():
            folder = bench.folder("edit")
            tree = Path(shutil.copytree(bench.tree(letter), folder / "tree"))
            with _synced(folder, tree, keys) as (rig, meter):
                few = chosen[:1] if "sync.archive" in keys else chosen
                ours = [_edited(rig, meter, victim) for victim in few]
                show(f"edit, {letter}, {name}", ours, goals={"requests": "<= 8"})
                if not keys:
                    for victim in victims[-_CHANGED_THERE:]:
                        edit_file(rig.sandbox.workspace / victim)
                    diffs = [_diffed(rig, meter) for _ in bench.rounds()]
                    show(f"diff of {_CHANGED_THERE}, {letter}", diffs)
            shutil.rmtree(folder)


def idle(bench: Bench) -> None:
    """CPU, wake-ups and resident memory of a daemon with nothing to do."""
    letter = bench.asked.trees[0]
    with _synced(bench.folder("idle"), bench.tree(letter), {}) as (rig, _):
        daemon = rig.daemons[-1]
        rig.ok("flush")
        cpu_s, wakeups = daemon.cpu_s(), daemon.wakeups()
        CLOCK.sleep(bench.asked.idle)  # time going by is what is measured here
        figures: Figures = {
            "CPU": daemon.cpu_s() - cpu_s,
            "wake-ups": daemon.wakeups() - wakeups,
            "memory": daemon.resident_kib() * 1024,
        }
    show(f"idle {bench.asked.idle:g} s, {letter}", [figures], goals={"CPU": "0", "wake-ups": "0"})


def startup(bench: Bench) -> None:
    """`syncd --version`, `syncd status` and `status --json`, with no daemon running, against `python -c pass`."""
    bare, folder = "python -c pass", bench.folder("startup")
    commands = ("--version", "status", "status --json")
    took: dict[str, list[Figures]] = {name: [] for name in (bare, *commands)}
    with Emulator(folder / "cloud", api_key=KEY) as emulator:
        rig = configured(folder, bench.tree("S"), emulator, {})
        env = {**rig.environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        for _ in range(4 * bench.asked.rounds):
            for name, costs in took.items():
                words = "-c pass" if name == bare else f"-m syncd {name}"
                costs.append(shell(f"{sys.executable} {words} >/dev/null", env))
    for name in commands:
        show(f"syncd {name}", took[name], {bare: took[bare]})
