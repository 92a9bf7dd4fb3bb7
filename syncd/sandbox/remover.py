"""Removes paths in the sandbox by running a program there, as the API documents it.

The program `remover_in_sandbox` and its list are uploaded as an execution's archive; its output holds the outcome for
each path. Nothing but the listed paths is touched, and of those only what still is as it was uploaded.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from syncd.core.errors import KeyRefused, TryLater
from syncd.core.waiter import Waiter
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.remote_job import JobRunner, JobStage, Purpose, RemoteJob, new_job
from syncd.sandbox import remover_in_sandbox
from syncd.sandbox.pending_removals import PendingRemoval, PendingRemovals
from syncd.sandbox.removal_plan import Versions
from syncd.scan.manifest import Entry, Kind, arrived_digest

_log = logging.getLogger("syncd.remover")
# Three seconds in all; a longer wait is the retry loop's, during which the daemon handles other events.
_POLLS, _FIRST_POLL_S = 6, 0.1
# So that the list, of some 200 bytes a path, stays a small upload, and its outcomes fit into one answer.
MOST_AT_ONCE = 10_000
_REMOVAL = Purpose(ApiStep.DELETE, "the removal of files there")


@dataclass
class Removal:
    """The outcomes of a removal.

    `kept`: folders that hold something else; `changed`: changed by someone there, so they stay; `failed`: with the
    reason.
    """

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Remover:
    """Removes paths of one sandbox's workspace, by one execution after the other.

    An execution without an answer may run late, when the same files are there again and wanted. So each is recorded
    before it is started, and `settle_pending` is called before anything is put there.
    """

    def __init__(self, job_runner: JobRunner, pending_removals: PendingRemovals, waiter: Waiter) -> None:
        self._job_runner = job_runner
        self._pending_removals = pending_removals
        self._waiter = waiter

    def settle_pending(self, check: Callable[[], None] = lambda: None) -> None:
        """Make sure that no removal that was started before still removes anything.

        Raises `StepFailed` if one is still running after a few polls, `Stop`.
        """
        for pending in self._pending_removals.notes:
            try:
                self._wait_for(pending, check)
            except StepFailed as failure:
                if failure.action is not FailureAction.REFUSED or failure.refusal is KeyRefused:
                    raise
                # The sandbox does not exist, or has no executions any more: the wait must not last for ever.
                _log.warning("cannot check if the removal %s has ended: %s", pending.name, failure)
        self._forget()

    def neutralise(self) -> None:
        """Have removals that have not started do nothing; after a reset, which ends all that run.

        Raises `StepFailed`, `Stop`.
        """
        for pending in self._pending_removals.notes:
            self._neutralise(pending)
        self._forget()

    def remove(self, paths_to_delete: Versions, check: Callable[[], None] = lambda: None) -> Removal:
        """Remove these paths, in their order; `check` is called at each poll.

        Raises `StepFailed`, `Stop`, and `TryLater` if the state folder cannot record what is about to run there.
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
        job = _job(part)
        self._job_runner.upload(job)
        try:
            self._pending_removals.note(job.name)
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
        output = self._job_runner.output(job, check)
        self._forget()
        return _outcomes(job, output, len(part))

    def _wait_for(self, pending: PendingRemoval, check: Callable[[], None]) -> None:
        """Wait until a removal has ended. Raises `StepFailed`, `Stop`.

        A request to start one that the API does not know may still reach it. The API starts the archive of that name,
        so an empty program replaces it: then it may start at any time.
        """
        wait_s, neutralised = _FIRST_POLL_S, False
        for _ in range(_POLLS):
            stage = self._job_runner.stage(pending.name, _REMOVAL)
            if stage is JobStage.ENDED or (stage is JobStage.UNKNOWN and neutralised):
                return
            check()
            if stage is JobStage.UNKNOWN:
                self._neutralise(pending)
                neutralised = True
                continue
            self._waiter.sleep(wait_s)
            wait_s *= 2
        raise StepFailed(
            ApiStep.DELETE,
            FailureAction.RETRY,
            "a removal that was started in the sandbox before has not ended, and could remove what is sent now",
            "the sync goes on when that has ended; if it never does, reset the sandbox",
        )

    def _neutralise(self, pending: PendingRemoval) -> None:
        # The API fetches it from the region that it was started with, whatever the configuration is now.
        self._job_runner.upload(RemoteJob(pending.name, _REMOVAL, {"main.py": b""}), pending.target.region)

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            self._pending_removals.forget()


def _job(part: list[tuple[str, list[Entry]]]) -> RemoteJob:
    return new_job(
        _REMOVAL, remover_in_sandbox, "removals.json", {"items": [_item(path, entries) for path, entries in part]}
    )


def _item(path: str, entries: list[Entry]) -> dict[str, Any]:
    return {"path": base64.b64encode(os.fsencode(path)).decode(), "versions": [_version(entry) for entry in entries]}


def _version(entry: Entry) -> dict[str, Any]:
    version: dict[str, Any] = {"kind": entry.kind.value}
    if entry.kind is Kind.SYMLINK:
        version["target"] = base64.b64encode(os.fsencode(entry.target)).decode()
    elif entry.kind is Kind.FILE:
        # Unknown content never counts as unchanged: no digest equals an empty one.
        version |= {"size": entry.size_bytes, "sha256": arrived_digest(entry).hex()}
    return version


def _outcomes(job: RemoteJob, output: str, count: int) -> list[str]:
    """Return the outcomes, in order. Raises `StepFailed` if the output is incomplete."""
    outcomes: dict[int, str] = {}
    done = False
    for row in job.rows(output):
        match row:
            case [int(index), str(outcome)] if 0 <= index < count:
                outcomes[index] = outcome
            case ["done"]:
                done = True
    if not done or len(outcomes) != count:
        raise job.incomplete(output)
    return [outcomes[index] for index in range(count)]
