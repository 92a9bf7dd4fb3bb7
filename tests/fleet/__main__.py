"""`python -m tests.fleet` simulates fleets of laptops, and prints their figures.

With no argument: fleets of 100, 1,000 and 10,000, in some minutes. `reality` runs real daemons beside a simulation.
"""

from __future__ import annotations

import argparse
import json

from tests.fleet import reality, report
from tests.fleet.rules import EARLIER, PRESENT

_SIZES = (100, 1_000, 10_000)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("simulation", "reality"), default="simulation")
    parser.add_argument(
        "--laptops", type=int, action="append", metavar="N", help="the size of a fleet; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=1, help="the seed of all chance (1)")
    parser.add_argument("--json", action="store_true", help="print JSON; of several fleets, a list")
    parser.add_argument("--earlier", action="store_true", help="follow the rules before they were made for a fleet")
    parser.add_argument("--plots", action="store_true", help="draw docs/fleet instead, by --laptops (1,000)")
    parser.add_argument("--daemons", type=int, default=20, metavar="N", help="how many real daemons (20)")
    return parser.parse_args()


def _simulate(asked: argparse.Namespace) -> None:
    day, summaries = report.day(asked.seed), []
    if not asked.json:
        print(", ".join(f"{name}: {value:,}" for name, value in day.items()))
    for laptops in asked.laptops or _SIZES:
        if not asked.json:
            print(report.heading(laptops), flush=True)
        found = {}
        for scenario, figures in report.run_fleet(laptops, asked.seed, EARLIER if asked.earlier else PRESENT):
            found[scenario.name] = figures
            if not asked.json:
                print(report.printed(scenario.name, figures), flush=True)
        summary = {**report.summary(laptops, found), **day}
        summaries.append(summary)
        if not asked.json:
            print(", ".join(f"{name}: {value}" for name, value in summary.items() if name != "scenarios"), flush=True)
    if asked.json:
        print(json.dumps(summaries[0] if len(summaries) == 1 else summaries, indent=1))


def main() -> None:
    asked = _arguments()
    if asked.what == "reality":
        reality.compare(asked.daemons, asked.seed, as_json=asked.json)
    elif asked.plots:
        for path in report.draw((asked.laptops or [1_000])[0], asked.seed):
            print(f"wrote {path}")
    else:
        _simulate(asked)


if __name__ == "__main__":
    main()
