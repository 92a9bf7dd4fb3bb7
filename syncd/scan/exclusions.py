"""What stays home, counted by who says so: the words of `status` for the rules of the selection."""

from __future__ import annotations

from collections.abc import Mapping

from syncd.scan.size_limit import LONGEST_PATH_BYTES
from syncd.selection.rules import Decision, Rule

# What no rule of a person's speaks of, and yet has no place in an archive.
OUTSIDE = Decision(False, Rule("built-in", None, "links that lead outside the workspace"))
SPECIAL = Decision(False, Rule("built-in", None, "sockets, FIFOs and devices"))
TOO_LONG = Decision(False, Rule("built-in", None, f"paths of more than {LONGEST_PATH_BYTES:,} bytes"))

_WORDS = {OUTSIDE.rule: "links", SPECIAL.rule: "special files", TOO_LONG.rule: "long paths"}
_SOURCES = ("built-in", "secrets", "workspace.ignore")
_FILES = (".gitignore", ".syncdignore")


def sources_of(rule: Rule) -> str:
    """Whose rule it is; one word for all .gitignore files, and one for git's other exclude files."""
    if rule in _WORDS:
        return _WORDS[rule]
    if rule.source in _SOURCES:
        return rule.source
    name = rule.source.rpartition("/")[2]
    return name if name in _FILES else "git excludes"


def counted(rules: Mapping[Rule, int]) -> dict[str, int]:
    """How many paths each has left out; a folder that is left out counts as one."""
    found: dict[str, int] = {}
    for rule, number in rules.items():
        if number > 0:
            word = sources_of(rule)
            found[word] = found.get(word, 0) + number
    return found
