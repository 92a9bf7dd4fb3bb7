"""Removes in the sandbox what is gone at home, by the documented way to run a program there.

The program (`removal_script`) and its list go up as an execution's archive; what it prints says what became of each
path. Nothing but the listed paths is touched, and of those only what still is as it was uploaded.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from syncd.core.errors import KeyRefused, TryLater
from syncd.core.text import one_line
from syncd.core.waiter import Waiter
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import Step, Verdict
from syncd.remote.remote_job import Errand, Purpose, Runner, Stage, new_name
from syncd.sandbox import remover_main
from syncd.sandbox.pending_removals import Started, StartedFile
from syncd.sandbox.removal_plan import Versions
from syncd.scan.manifest import Entry, Kind, arrived_digest

_log = logging.getLogger("syncd.removal")
# Three seconds in all; longer waits are those of any failure, which hear what else goes on.
_LOOKS, _FIRST_LOOK_S = 6, 0.1
# So that the list, of some 200 bytes a path, stays a small upload, and what is said of it fits into one answer.
MOST_AT_ONCE = 10_000
_REMOVAL = Purpose(Step.DELETE, "the removal of files there")


@dataclass
class Removal:
    """What became of the paths. `kept`: folders with something else in them; `changed`: by someone over there, so they
    stay; `failed`: with the reason.
    """

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Remover:
    """Removes paths of one sandbox's workspace, by one execution after the other.

    One that went unanswered may run late, when the same files are there again and wanted. So each is noted before it is
    asked for, and `settle` comes before whatever is put there.
    """

    def __init__(self, runner: Runner, started: StartedFile, waiter: Waiter) -> None:
        self._runner = runner
        self._started = started
        self._waiter = waiter

    def settle(self, check: Callable[[], None] = lambda: None) -> None:
        """See that no removal that was started before still takes anything away.

        Raises `StepFailed` while one is under way, after a few looks, `Stop`.
        """
        for started in self._started.notes:
            try:
                self._settle(started, check)
            except StepFailed as failure:
                if failure.verdict is not Verdict.REFUSED or failure.refusal is KeyRefused:
                    raise
                # The sandbox is gone, or it has no executions any more: nobody can tell, and nothing waits for ever.
                _log.warning("whether the removal %s has ended cannot be seen: %s", started.name, failure)
        self._forget()

    def disarm(self) -> None:
        """After a reset, in which everything that ran there ended: what was not begun by then shall do nothing.

        Raises `StepFailed`, `Stop`.
        """
        for started in self._started.notes:
            self._disarm(started)
        self._forget()

    def remove(self, doomed: Versions, check: Callable[[], None] = lambda: None) -> Removal:
        """Remove these paths, in their order; `check` is called all the time.

        Raises `StepFailed`, `Stop`, and `TryLater` where the state folder takes no note of what is about to run there.
        """
        removal = Removal()
        paths = list(doomed)
        for start in range(0, len(paths), MOST_AT_ONCE):
            part = paths[start : start + MOST_AT_ONCE]
            for path, fate in zip(part, self._run([(path, doomed[path]) for path in part], check), strict=True):
                if fate in ("removed", "absent"):
                    removal.removed.append(path)
                elif fate == "kept":
                    removal.kept.append(path)
                elif fate == "changed":
                    removal.changed.append(path)
                else:
                    removal.failed[path] = fate.removeprefix("failed: ")
        return removal

    def _run(self, part: list[tuple[str, list[Entry]]], check: Callable[[], None]) -> list[str]:
        errand = _errand(part, new_name())
        self._runner.upload(errand)
        try:
            self._started.note(errand.name)
        except OSError as failure:
            raise TryLater(
                f"the state folder cannot be written ({failure.strerror or failure}), so nothing is removed",
                "make it writable; a sync follows by itself",
            ) from None
        try:
            self._runner.start(errand)
        except StepFailed as failure:
            if failure.verdict is Verdict.REFUSED:
                self._forget()
            raise
        printed = self._runner.printed(errand, check)
        self._forget()
        return _fates(printed, errand.name, len(part))

    def _settle(self, started: Started, check: Callable[[], None]) -> None:
        """One that the API does not know yet may be on its way to it. The API starts what lies under the name, so
        something harmless is put there: then it may begin when it likes.
        """
        wait_s, disarmed = _FIRST_LOOK_S, False
        for _ in range(_LOOKS):
            stage = self._runner.stage(started.name, _REMOVAL)
            if stage is Stage.ENDED or (stage is Stage.UNKNOWN and disarmed):
                return
            check()
            if stage is Stage.UNKNOWN:
                self._disarm(started)
                disarmed = True
                continue
            self._waiter.sleep(wait_s)
            wait_s *= 2
        raise StepFailed(
            Step.DELETE,
            Verdict.RETRY,
            "a removal that was started in the sandbox before has not ended, and could take away what is sent now",
            "it goes on when that has ended; if it never does, reset the sandbox",
        )

    def _disarm(self, started: Started) -> None:
        # It is fetched by the region that it was asked for with, whatever the configuration says by now.
        self._runner.upload(Errand(started.name, _REMOVAL, {"main.py": b""}), started.target.region)

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            self._started.forget()


def _errand(part: list[tuple[str, list[Entry]]], name: str) -> Errand:
    """The program and its list. The name marks its lines, whatever else prints over there."""
    asked = {"word": name, "items": [_item(path, entries) for path, entries in part]}
    with open(remover_main.__file__, "rb") as file:
        files = {"main.py": file.read(), "removals.json": json.dumps(asked).encode("ascii")}
    return Errand(name, _REMOVAL, files)


def _item(path: str, entries: list[Entry]) -> dict[str, Any]:
    return {"path": base64.b64encode(os.fsencode(path)).decode(), "versions": [_version(entry) for entry in entries]}


def _version(entry: Entry) -> dict[str, Any]:
    version: dict[str, Any] = {"kind": entry.kind.value}
    if entry.kind is Kind.SYMLINK:
        version["target"] = base64.b64encode(os.fsencode(entry.target)).decode()
    elif entry.kind is Kind.FILE:
        # Of content that is not known nobody can say that it is unchanged: no digest is equal to none.
        version |= {"size": entry.size_bytes, "sha256": arrived_digest(entry).hex()}
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
        message = f"{_REMOVAL.what} did not come to its end ({one_line(last[0], 120)})"
        raise StepFailed(Step.DELETE, Verdict.RETRY, message)
    return [fates[index] for index in range(count)]
