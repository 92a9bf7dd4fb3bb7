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
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.remote_job import JobRunner, JobStage, Purpose, RemoteJob, new_name
from syncd.sandbox import remover_main
from syncd.sandbox.pending_removals import PendingRemoval, PendingRemovals
from syncd.sandbox.removal_plan import Versions
from syncd.scan.manifest import Entry, Kind, arrived_digest

_log = logging.getLogger("syncd.removal")
# Three seconds in all; longer waits are those of any failure, which hear what else goes on.
_LOOKS, _FIRST_LOOK_S = 6, 0.1
# So that the list, of some 200 bytes a path, stays a small upload, and what is said of it fits into one answer.
MOST_AT_ONCE = 10_000
_REMOVAL = Purpose(ApiStep.DELETE, "the removal of files there")


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

    def __init__(self, job_runner: JobRunner, started: PendingRemovals, waiter: Waiter) -> None:
        self._job_runner = job_runner
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
                if failure.action is not FailureAction.REFUSED or failure.refusal is KeyRefused:
                    raise
                # The sandbox is gone, or it has no executions any more: nobody can tell, and nothing waits for ever.
                _log.warning("whether the removal %s has ended cannot be seen: %s", started.name, failure)
        self._forget()

    def neutralise(self) -> None:
        """After a reset, in which everything that ran there ended: what was not begun by then shall do nothing.

        Raises `StepFailed`, `Stop`.
        """
        for started in self._started.notes:
            self._neutralise(started)
        self._forget()

    def remove(self, paths_to_delete: Versions, check: Callable[[], None] = lambda: None) -> Removal:
        """Remove these paths, in their order; `check` is called all the time.

        Raises `StepFailed`, `Stop`, and `TryLater` where the state folder takes no note of what is about to run there.
        """
        removal = Removal()
        paths = list(paths_to_delete)
        for start in range(0, len(paths), MOST_AT_ONCE):
            part = paths[start : start + MOST_AT_ONCE]
            for path, outcome in zip(
                part, self._run([(path, paths_to_delete[path]) for path in part], check), strict=True
            ):
                if outcome in ("removed", "absent"):
                    removal.removed.append(path)
                elif outcome == "kept":
                    removal.kept.append(path)
                elif outcome == "changed":
                    removal.changed.append(path)
                else:
                    removal.failed[path] = outcome.removeprefix("failed: ")
        return removal

    def _run(self, part: list[tuple[str, list[Entry]]], check: Callable[[], None]) -> list[str]:
        job = _job(part, new_name())
        self._job_runner.upload(job)
        try:
            self._started.note(job.name)
        except OSError as failure:
            raise TryLater(
                f"the state folder cannot be written ({failure.strerror or failure}), so nothing is removed",
                "make it writable; a sync follows by itself",
            ) from None
        try:
            self._job_runner.start(job)
        except StepFailed as failure:
            if failure.action is FailureAction.REFUSED:
                self._forget()
            raise
        printed = self._job_runner.output(job, check)
        self._forget()
        return _outcomes(printed, job.name, len(part))

    def _settle(self, started: PendingRemoval, check: Callable[[], None]) -> None:
        """One that the API does not know yet may be on its way to it. The API starts what lies under the name, so
        something harmless is put there: then it may begin when it likes.
        """
        wait_s, neutralised = _FIRST_LOOK_S, False
        for _ in range(_LOOKS):
            stage = self._job_runner.stage(started.name, _REMOVAL)
            if stage is JobStage.ENDED or (stage is JobStage.UNKNOWN and neutralised):
                return
            check()
            if stage is JobStage.UNKNOWN:
                self._neutralise(started)
                neutralised = True
                continue
            self._waiter.sleep(wait_s)
            wait_s *= 2
        raise StepFailed(
            ApiStep.DELETE,
            FailureAction.RETRY,
            "a removal that was started in the sandbox before has not ended, and could take away what is sent now",
            "it goes on when that has ended; if it never does, reset the sandbox",
        )

    def _neutralise(self, started: PendingRemoval) -> None:
        # It is fetched by the region that it was asked for with, whatever the configuration says by now.
        self._job_runner.upload(RemoteJob(started.name, _REMOVAL, {"main.py": b""}), started.target.region)

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            self._started.forget()


def _job(part: list[tuple[str, list[Entry]]], name: str) -> RemoteJob:
    """The program and its list. The name marks its lines, whatever else prints over there."""
    asked = {"word": name, "items": [_item(path, entries) for path, entries in part]}
    with open(remover_main.__file__, "rb") as file:
        files = {"main.py": file.read(), "removals.json": json.dumps(asked).encode("ascii")}
    return RemoteJob(name, _REMOVAL, files)


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


def _outcomes(printed: str, word: str, count: int) -> list[str]:
    """What became of each, in order. Raises `StepFailed` where the program did not come to its end."""
    outcomes: dict[int, str] = {}
    done = False
    for line in printed.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        match said:
            case [str(who), int(index), str(outcome)] if who == word and 0 <= index < count:
                outcomes[index] = outcome
            case [str(who), "done"] if who == word:
                done = True
    if not done or len(outcomes) != count:
        last = printed.strip().splitlines()[-1:] or ["nothing was printed"]
        message = f"{_REMOVAL.description} did not come to its end ({one_line(last[0], 120)})"
        raise StepFailed(ApiStep.DELETE, FailureAction.RETRY, message)
    return [outcomes[index] for index in range(count)]
