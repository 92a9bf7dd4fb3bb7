"""`python -m tests.fleet` simulates fleets of laptops, and prints their figures.

With no argument: fleets of 100, 1,000 and 10,000, in some minutes.
"""

from __future__ import annotations

import argparse

from tests.fleet import report

_SIZES = (100, 1_000, 10_000)


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument(
        "--laptops", type=int, action="append", metavar="N", help="the size of a fleet; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=1, help="the seed of all chance (1)")
    asked = parser.parse_args()
    print(", ".join(f"{name}: {value:,}" for name, value in report.day(asked.seed).items()))
    for laptops in asked.laptops or _SIZES:
        print(report.heading(laptops), flush=True)
        found = {}
        for scenario, figures in report.run_fleet(laptops, asked.seed):
            found[scenario.name] = figures
            print(report.printed(scenario.name, figures), flush=True)
        print(", ".join(f"{name}: {value}" for name, value in report.summary(found).items()), flush=True)


if __name__ == "__main__":
    main()
