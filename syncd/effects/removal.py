"""Removes in the sandbox what is gone at home, by the documented way to run a program there.

The program (`removal_script`) and its list go up as an execution's archive; what it prints says what became of each
path. Nothing but the listed paths is touched, and of those only what still is as it was uploaded.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from syncd.base.text import one_line
from syncd.effects import removal_script
from syncd.effects.execution import Errand, Runner, new_name
from syncd.effects.failure import StepFailed
from syncd.policy.manifest import Entry, Kind
from syncd.policy.removal import Versions
from syncd.policy.verdict import Step, Verdict

# So that the list, of some 200 bytes a path, stays a small upload.
MOST_AT_ONCE = 20_000


@dataclass
class Removal:
    """What became of the paths. `changed`: by someone over there, so they stay; `failed`: with the reason."""

    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Remover:
    """Removes paths of one sandbox's workspace."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def remove(self, doomed: Versions, check: Callable[[], None] = lambda: None) -> Removal:
        """Remove these paths, in their order; `check` is called all the time. Raises `StepFailed`, `Stop`."""
        removal = Removal()
        paths = list(doomed)
        for start in range(0, len(paths), MOST_AT_ONCE):
            part = paths[start : start + MOST_AT_ONCE]
            for path, fate in zip(part, self._run([(path, doomed[path]) for path in part], check), strict=True):
                if fate in ("removed", "absent", "kept"):  # what keeps a directory is someone else's
                    removal.removed.append(path)
                elif fate == "changed":
                    removal.changed.append(path)
                else:
                    removal.failed[path] = fate.removeprefix("failed: ")
        return removal

    def _run(self, part: list[tuple[str, list[Entry]]], check: Callable[[], None]) -> list[str]:
        name = new_name()
        return _fates(self._runner.run(_errand(part, name), check), name, len(part))


def _errand(part: list[tuple[str, list[Entry]]], name: str) -> Errand:
    """The program and its list. The name marks its lines, whatever else prints over there."""
    asked = {"word": name, "items": [_item(path, entries) for path, entries in part]}
    with open(removal_script.__file__, "rb") as file:
        files = {"main.py": file.read(), "removals.json": json.dumps(asked).encode("ascii")}
    return Errand(name, "removing files", files)


def _item(path: str, entries: list[Entry]) -> dict[str, Any]:
    return {"path": base64.b64encode(os.fsencode(path)).decode(), "versions": [_version(entry) for entry in entries]}


def _version(entry: Entry) -> dict[str, Any]:
    version: dict[str, Any] = {"kind": entry.kind.value}
    if entry.kind is Kind.SYMLINK:
        version["target"] = base64.b64encode(os.fsencode(entry.target)).decode()
    elif entry.kind is Kind.FILE:
        # Of content that is not known nobody can say that it is unchanged: no digest is equal to none.
        version |= {"size": entry.size_bytes, "sha256": entry.digest.hex()}
    return version


def _fates(printed: str, word: str, count: int) -> list[str]:
    """What became of each, in order. Raises `StepFailed` where the program did not come to its end."""
    fates: dict[int, str] = {}
    done = False
    for line in printed.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        match said:
            case [str(who), int(index), str(fate)] if who == word and 0 <= index < count:
                fates[index] = fate
            case [str(who), "done"] if who == word:
                done = True
    if not done or len(fates) != count:
        last = printed.strip().splitlines()[-1:] or ["nothing was printed"]
        message = f"removing files there did not come to its end ({one_line(last[0], 120)})"
        raise StepFailed(Step.DELETE, Verdict.RETRY, message)
    return [fates[index] for index in range(count)]
