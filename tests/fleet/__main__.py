"""`python -m tests.fleet` simulates fleets of laptops, and prints their figures.

With no argument: fleets of 100, 1,000 and 10,000, in some minutes.
"""

from __future__ import annotations

import argparse
import json

from tests.fleet import report

_SIZES = (100, 1_000, 10_000)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument(
        "--laptops", type=int, action="append", metavar="N", help="the size of a fleet; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=1, help="the seed of all chance (1)")
    parser.add_argument("--json", action="store_true", help="print JSON; of several fleets, a list")
    return parser.parse_args()


def main() -> None:
    asked = _arguments()
    day, summaries = report.day(asked.seed), []
    if not asked.json:
        print(", ".join(f"{name}: {value:,}" for name, value in day.items()))
    for laptops in asked.laptops or _SIZES:
        if not asked.json:
            print(report.heading(laptops), flush=True)
        found = {}
        for scenario, figures in report.run_fleet(laptops, asked.seed):
            found[scenario.name] = figures
            if not asked.json:
                print(report.printed(scenario.name, figures), flush=True)
        summary = {**report.summary(laptops, found), **day}
        summaries.append(summary)
        if not asked.json:
            print(", ".join(f"{name}: {value}" for name, value in summary.items() if name != "scenarios"), flush=True)
    if asked.json:
        print(json.dumps(summaries[0] if len(summaries) == 1 else summaries, indent=1))


if __name__ == "__main__":
    main()
