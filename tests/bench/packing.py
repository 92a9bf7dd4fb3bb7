"""A first snapshot against shell commands, and either codec on a slow uplink."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from syncd.archive.archive_format import Codec
from tests.bench import snapshot_bench, trees
from tests.bench.fixtures import Fixtures, lacks
from tests.bench.stopwatch import Elapsed, command, shell
from tests.bench.table import Row, Skipped, alone, compared, megabytes

GZIP = "tar czf"
RIVALS = {
    GZIP: ((), "tar czf {out} -C {tree} ."),
    "tar | gzip -1": (("gzip",), "tar cf - -C {tree} . | gzip -1 >{out}"),
    "tar | pigz -1": (("pigz",), "tar cf - -C {tree} . | pigz -1 >{out}"),
}
MEASURED = ("M", "L")


@dataclass
class Figures:
    """The cost of one contender's rounds on one tree; `inside` is syncd's without the interpreter's start and end."""

    whole: list[Elapsed] = field(default_factory=list)
    inside: list[Elapsed] = field(default_factory=list)
    peak_bytes: list[float] = field(default_factory=list)
    size_bytes: int = 0
    entries: int = 0


def rival(fixtures: Fixtures, letter: str, name: str, figures: Figures) -> None:
    """Measure one round of a shell command, whose archive goes into a file as syncd's does."""
    out = fixtures.scratch / "rival.tgz"
    out.unlink(missing_ok=True)
    figures.whole.append(shell(RIVALS[name][1].format(out=out, tree=fixtures.tree(letter))))
    figures.size_bytes = out.stat().st_size


def measured(fixtures: Fixtures, letter: str) -> dict[str, Figures]:
    """Measure rounds of all contenders in turn, once a run; syncd's are named by codec."""
    return fixtures.once(f"packing {letter}", lambda: _measured(fixtures, letter))


def _measured(fixtures: Fixtures, letter: str) -> dict[str, Figures]:
    ours = [codec.value for codec in Codec]
    rivals = [name for name, (tools, _) in RIVALS.items() if not lacks("tar", *tools)]
    figures = {name: Figures() for name in (*ours, *rivals)}
    for _ in range(fixtures.sizes.rounds):
        for name in ours:
            _ours(fixtures, letter, name, figures[name])
        for name in rivals:
            rival(fixtures, letter, name, figures[name])
    return figures


def _ours(fixtures: Fixtures, letter: str, codec: str, figures: Figures) -> None:
    spool, said = fixtures.folder("spool"), fixtures.scratch / "said"
    words = (str(fixtures.tree(letter)), str(spool), codec)
    with open(said, "wb") as out:
        figures.whole.append(command((sys.executable, "-m", snapshot_bench.__name__, *words), stdout=out.fileno()))
    answer: dict[str, Any] = json.loads(said.read_text())
    figures.inside.append(Elapsed(answer["wall_s"], answer["cpu_s"]))
    figures.peak_bytes.append(answer["peak_kib"] * 1024)
    figures.size_bytes, figures.entries = answer["size_bytes"], answer["entries"]


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """First snapshot: wall, CPU and size against tar czf, tar | gzip -1, tar | pigz -1."""
    for letter in (letter for letter in MEASURED if letter in fixtures.sizes.trees):
        figures = measured(fixtures, letter)
        ours = figures[Codec.FAST.value]
        title = f"first snapshot, {letter}"
        yield alone(
            f"tree {letter}: {ours.entries:,} entries", [trees.content_bytes(fixtures.tree(letter))], unit=megabytes
        )
        for name, (tools, _) in RIVALS.items():
            if name not in figures:
                yield Skipped(title, lacks("tar", *tools))
                continue
            other = figures[name]
            for kind, took in (("process", ours.whole), ("inside", ours.inside)):
                for unit in ("wall_s", "cpu_s"):
                    mine, theirs = ([getattr(each, unit) for each in figures] for figures in (took, other.whole))
                    yield compared(f"{title}: {kind}, {_SHORT[unit]}", name, mine, theirs)
            yield compared(f"{title}: size", name, [ours.size_bytes], [other.size_bytes], unit=megabytes)
        if figures.keys().isdisjoint(RIVALS):
            yield alone(f"{title}: process, wall", [took.wall_s for took in ours.whole])
            yield alone(f"{title}: size", [ours.size_bytes], unit=megabytes)
        yield alone(f"{title}: peak memory", ours.peak_bytes, unit=megabytes)


_SHORT = {"wall_s": "wall", "cpu_s": "CPU"}


def uplink_rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """Codecs: size and CPU against gzip -6, and seconds to the last byte on a slow uplink against tar czf - | curl."""
    for letter in (letter for letter in MEASURED if letter in fixtures.sizes.trees):
        figures = measured(fixtures, letter)
        if GZIP not in figures:
            yield Skipped(f"codecs, {letter}", lacks("tar"))
            continue
        gzip = figures[GZIP]
        bytes_per_s = fixtures.sizes.uplink_mbit * 1e6 / 8
        for codec in Codec:
            ours, dense = figures[codec.value], codec is Codec.DENSE
            title = f"codec {codec.value}, {letter}"
            size_goal, cpu_goal = (">= 1x", ">= 2x") if dense else ("", "")
            yield compared(
                f"{title}: size", "gzip -6", [ours.size_bytes], [gzip.size_bytes], unit=megabytes, goal=size_goal
            )
            mine, theirs = ([took.cpu_s for took in each] for each in (ours.inside, gzip.whole))
            yield compared(f"{title}: CPU", "tar czf (gzip -6)", mine, theirs, goal=cpu_goal)
            # Ours is whole before its first byte leaves; a pipe sends while it compresses, so its slower part counts.
            arrived = [took.wall_s + ours.size_bytes / bytes_per_s for took in ours.inside]
            piped = [max(took.wall_s, gzip.size_bytes / bytes_per_s) for took in gzip.whole]
            yield compared(
                f"{title}: last byte, {fixtures.sizes.uplink_mbit:g} Mbit/s",
                "tar czf - | curl, both computed",
                arrived,
                piped,
                goal=size_goal,
            )
