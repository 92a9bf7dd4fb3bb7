"""`python -m tests.history [--against TOOL]`: a person and an agent write in real time; did each version survive?

A process of each side reads, writes and deletes files of its folder; the tool syncs them, and is killed now and then. A
checker judges by what both saw. Exit 1 if a version is lost or no order explains what was seen, 2 if the tool cannot be
run here.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.history.checker import HOME, THERE, History, Step
from tests.history.peers import CLOCK, TOOLS, Tool, files, running, syncd
from tests.history.writer import SLOTS, found_in, values_in
from tools.bench.measure import REPO, lacks
from tools.bench.peer import true_within


def recorded(tool: Tool, folder: Path, seconds: float, seed: int, pause_s: float) -> History:
    """Have both sides write for so many seconds, and return what they saw."""
    chance, places = random.Random(seed), {HOME: tool.home, THERE: tool.there}
    logs = {side: folder / f"{side}.jsonl" for side in places}
    steps, writers = [], []
    for side, place in places.items():
        words = map(str, (side, place, folder / f"{side}.draft", seed, seconds, pause_s))
        with open(logs[side], "wb") as log:
            argv = (sys.executable, "-m", "tests.history.writer", *words)
            writers.append(subprocess.Popen(argv, cwd=REPO, stdout=log))

    def ask(kind: str) -> None:
        begin, after_s = CLOCK.monotonic_s(), chance.random()
        answer = {
            "barrier": tool.barrier,
            "bring_home": tool.bring_home,
            "kill_apply": lambda: tool.kill_apply(after_s),
            "kill_daemon": lambda: tool.kill_daemon(after_s),
        }[kind]()
        steps.append(Step(kind, "", begin, CLOCK.monotonic_s(), "", None, None, None, *answer))

    while any(writer.poll() is None for writer in writers):
        CLOCK.sleep(min(chance.expovariate(1.0), seconds / 4))
        ask(chance.choices(("barrier", "bring_home", "kill_apply", "kill_daemon"), (45, 35, 8, 12))[0])
    if any(writer.returncode for writer in writers):
        raise RuntimeError("a writer failed")
    for kind in ("barrier", "bring_home") * 2 + ("barrier",):
        ask(kind)
    (folder / "tool.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in steps))
    if not steps[-1].ok:  # it has no barrier
        true_within(15, lambda: files(tool.home) == files(tool.there))
    now = CLOCK.monotonic_s()
    for side, place in places.items():
        steps += [Step("final", side, now, now, path, values_in(place / path)) for path in SLOTS]
        steps += [Step(*json.loads(line)) for line in logs[side].read_text().splitlines()]
    kept = {token for content in tool.copies() for _, token in found_in(content)}
    (folder / "kept.json").write_text(json.dumps([*kept]))
    return History(steps, kept)


def told(history: History, window_s: float) -> tuple[list[str], str]:
    """Return what is wrong with a history, and its figures; `window_s` of what the agent wrote is no promise."""
    places, lost = history.places()
    steps = Counter(f"{step.side} {step.kind}" if step.side else f"{step.kind} {step.ok}" for step in history.steps)
    late = [each for each in lost if each[0].side == HOME or each[2] > window_s]
    longest_s = max((lived_s for _, _, lived_s in lost), default=0.0)
    wrong = [*history.inexplicable()]
    wrong += [f"{step.path}: {token} is lost, {lived_s:.2f} s after it was written" for step, token, lived_s in late]
    figures = ", ".join(f"{count} {what}" for what, count in [*sorted(steps.items()), *sorted(places.items())])
    return wrong, f"{figures}; {len(lost) - len(late)} of the lost as is said; they lived for up to {longest_s:.1f} s"


def main() -> int:
    """Record a history, judge it, and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.history", description=__doc__)
    parser.add_argument("--against", choices=("syncd", *TOOLS, "mutagen"), default="syncd", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1000000))
    parser.add_argument("--pause", type=float, default=0.1, help="of both sides, on average; default: %(default)s")
    parser.add_argument("--dir", type=Path, help="keep everything in this new folder")
    chosen = parser.parse_args()
    tool = TOOLS.get(chosen.against)
    if missing := lacks(*tool.needs) if tool else [chosen.against] * (chosen.against == "mutagen"):
        print(f"{' and '.join(missing)}: not installed, or not known how to run", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="history-") as scratch:
        folder = chosen.dir or Path(scratch) / "history"
        folder.mkdir()
        with running(tool, folder) if tool else syncd(folder) as each:
            wrong, figures = told(recorded(each, folder, chosen.seconds, chosen.seed, chosen.pause), each.window_s)
    print(f"{chosen.against}, seed {chosen.seed}: {figures}", *wrong[:20], f"{len(wrong)} faults", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
