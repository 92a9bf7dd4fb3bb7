"""`python -m tools.mutation [PATTERN…]`: has mutmut run, then prints a table by module, and each mutant that survived.

What is mutated is listed in pyproject.toml, `[tool.mutmut]`. A pattern is of a mutant's name, such as
`syncd.remote.upload_url*`; what ran before, and has not changed since, is not run again, and what `equivalent.toml`
explains is not run at all. Exit 1 if any other survived, or if mutmut failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

from tools.mutation.unexplained import changed_lines, is_explained, names

# With this variable the process of each mutant would compile all tests anew.
_COMPILES = "PYTHONDONTWRITEBYTECODE"
# The functions that decide, in the modules that also act: of these nothing else is tried unless a pattern names it.
DECISIONS = {
    "syncd.merge.home": "taken_mode merged_mode next_base",
    "syncd.model.git_names": "is_in_repository names_submodules",
    "syncd.merge.path_changes": "check_plan opened decide _matches",
    "syncd.sandbox.provider": "acquire_wait_s",
    "syncd.scan.exclusions": "unreadable unmounted leads_outside too_deep largest check_size too_long mib",
}
# mutmut's numbers: no test failed, and no test reaches the function.
_SURVIVED = {0: "survived", 33: "no tests"}


def main(patterns: list[str]) -> int:
    """Run, and tell."""
    patterns = patterns or _decisions()
    environ = {name: value for name, value in os.environ.items() if name != _COMPILES}
    program = Path(__file__).with_name("unexplained.py")
    run = subprocess.run([sys.executable, program, "run", *patterns], check=False, stdout=sys.stderr, env=environ)
    figures: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, number in names():
        of_module = figures[name.rpartition(".")[0]]
        if is_explained(name):
            of_module["equivalent"] += 1
        elif number in _SURVIVED:
            of_module["survived"] += 1
            print(f"{name}: {_SURVIVED[number]}\n" + "\n".join(f"    {line}" for line in changed_lines(name)))
        elif number is not None:
            of_module["noticed"] += 1
    print(f"{'module':32} {'mutants':>8} {'noticed':>8} {'equivalent':>11} {'survived':>9} {'share':>7}")
    total: dict[str, int] = defaultdict(int)
    for module, of_module in sorted(figures.items()):
        for word, count in of_module.items():
            total[word] += count
        print(_row(module, of_module))
    print(_row("all", total))
    return 1 if total["survived"] or run.returncode else 0


def _decisions() -> list[str]:
    """Return the patterns of all that is mutated, but for what acts."""
    listed = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]["only_mutate"]
    modules = {path.removesuffix(".py").replace("/", ".") for path in listed} - DECISIONS.keys()
    functions = [f"{module}.x_{name}*" for module, names in DECISIONS.items() for name in names.split()]
    return [*(f"{module}.x*" for module in sorted(modules)), *functions]


def _row(name: str, figures: dict[str, int]) -> str:
    noticed, equivalent, survived = (figures[word] for word in ("noticed", "equivalent", "survived"))
    possible = noticed + survived
    share = noticed / possible if possible else 1.0
    return f"{name:32} {possible + equivalent:8} {noticed:8} {equivalent:11} {survived:9} {share:7.1%}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
