"""`python tools/mutation/unexplained.py run [PATTERN…]`: mutmut, without the mutants that `equivalent.toml` explains.

They pass every test, so each would cost as much as a hundred others. Run by its path: mutmut imports the tests from a
copy of its own, and must find none loaded.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

MUTANTS = Path("mutants")
_HEAD = re.compile(r"( *)(?:async )?def (x\S+__mutmut_\w+)\(")


@cache
def explained() -> set[tuple[str, str]]:
    """The functions and mutated lines that nothing can notice, with a reason each; an empty line is for all of them."""
    found = tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text("utf-8"))
    return {(each["in"], each.get("line", "").strip()) for each in found["equivalent"] if each["why"]}


def is_explained(name: str) -> bool:
    function, lines = function_of(name), changed_lines(name)
    return (function, "") in explained() or (bool(lines) and all((function, line) in explained() for line in lines))


def function_of(name: str) -> str:
    """`PatternList.local` of `syncd.selection.selection.xǁPatternListǁlocal__mutmut_39`."""
    mangled = name.rpartition(".")[2].partition("__mutmut_")[0]
    return mangled.removeprefix("x_") if mangled.startswith("x_") else mangled[2:].replace("ǁ", ".")


def changed_lines(name: str) -> list[str]:
    """What the mutant has, and the original has not."""
    module, _, mutant = name.rpartition(".")
    bodies = _bodies(module)
    original = bodies[f"{mutant.partition('__mutmut_')[0]}__mutmut_orig"]
    return [*(Counter(bodies[mutant]) - Counter(original)).elements()]


@cache
def _bodies(module: str) -> dict[str, list[str]]:
    """The lines of each function in a mutated module, the first one without the function's name."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    indent = 0
    for line in (MUTANTS / f"{module.replace('.', '/')}.py").read_text("utf-8").splitlines():
        if head := _HEAD.match(line):
            lines, indent = found.setdefault(head[2], [line[head.end() :].strip()]), len(head[1])
        elif line.startswith(" " * (indent + 1)) or line[indent:].startswith(")"):
            lines.append(line.strip())
        elif line:
            lines = []  # what follows the function
    return found


def names() -> Iterator[tuple[str, int | None]]:
    """Yield each mutant, and mutmut's number for what became of it; None: it was not tried."""
    for file in sorted(MUTANTS.glob("syncd/**/*.meta")):
        yield from json.loads(file.read_text("utf-8"))["exit_code_by_key"].items()


def _run() -> None:
    from mutmut import __main__ as mutmut  # noqa: PLC0415 - it changes how Python's processes begin

    collect = mutmut.collect_source_file_mutation_data

    def unexplained(**patterns: Any) -> Any:
        mutants, by_path = collect(**patterns)
        return [each for each in mutants if not is_explained(each[1])], by_path

    mutmut.collect_source_file_mutation_data = unexplained
    mutmut.cli()


if __name__ == "__main__":
    sys.path[0] = ""  # as for `python -m mutmut`: this folder is no place for imports
    _run()
