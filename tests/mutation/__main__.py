"""`python -m tests.mutation [PATTERN…]`: has mutmut run, then prints a table by module, and each mutant that survived.

What is mutated is listed in pyproject.toml, `[tool.mutmut]`. A pattern is of a mutant's name, such as
`syncd.remote.upload_url*`; what ran before, and has not changed since, is not run again. Exit 1 if any survived that
`equivalent.toml` does not explain.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MUTMUT = (sys.executable, "-m", "mutmut")
# Mutmut's words for what a test, or its time, put an end to.
NOTICED = frozenset({"killed", "timeout", "segfault", "caught by type check"})
NOT_RUN = "not checked"


def explained() -> set[tuple[str, str]]:
    """The functions and mutated lines that nothing can notice, with a reason each."""
    found = tomllib.loads((FOLDER / "equivalent.toml").read_text("utf-8"))
    return {(each["in"], each["line"].strip()) for each in found["equivalent"] if each["why"]}


def function_of(name: str) -> str:
    """`PatternList.local` of `syncd.selection.selection.xǁPatternListǁlocal__mutmut_39`."""
    mangled = name.rpartition(".")[2].partition("__mutmut_")[0]
    return mangled.removeprefix("x_") if mangled.startswith("x_") else mangled[2:].replace("ǁ", ".")


def outcomes() -> dict[str, str]:
    """Each mutant's name to what became of it."""
    printed = _printed("results", "--all", "true")
    pairs = (line.strip().rpartition(": ") for line in printed.splitlines())
    return {name: outcome for name, _, outcome in pairs if name.startswith("syncd.") and outcome != NOT_RUN}


def changed_lines(name: str) -> list[str]:
    """What the mutant has, and the original has not."""
    lines = _printed("show", name).splitlines()
    return [line[1:].strip() for line in lines if line.startswith("+") and not line.startswith("+++")]


def _printed(*words: str) -> str:
    return subprocess.run([*MUTMUT, *words], capture_output=True, text=True, check=True).stdout


def main(patterns: list[str]) -> int:
    """Run, and tell."""
    subprocess.run([*MUTMUT, "run", *patterns], check=False, stdout=sys.stderr)
    equivalent, unexplained = explained(), 0
    figures: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, outcome in outcomes().items():
        module = name.rpartition(".")[0]
        if outcome in NOTICED:
            figures[module]["noticed"] += 1
            continue
        lines = changed_lines(name)
        if lines and all((function_of(name), line) in equivalent for line in lines):
            figures[module]["equivalent"] += 1
            continue
        figures[module]["survived"] += 1
        unexplained += 1
        print(f"{name}: {outcome}\n" + "\n".join(f"    {line}" for line in lines))
    print(f"{'module':32} {'mutants':>8} {'noticed':>8} {'equivalent':>11} {'survived':>9} {'share':>7}")
    total: dict[str, int] = defaultdict(int)
    for module, of_module in sorted(figures.items()):
        for word, count in of_module.items():
            total[word] += count
        print(_row(module, of_module))
    print(_row("all", total))
    return 1 if unexplained else 0


def _row(name: str, figures: dict[str, int]) -> str:
    noticed, equivalent, survived = (figures[word] for word in ("noticed", "equivalent", "survived"))
    possible = noticed + survived
    share = noticed / possible if possible else 1.0
    return f"{name:32} {possible + equivalent:8} {noticed:8} {equivalent:11} {survived:9} {share:7.1%}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
