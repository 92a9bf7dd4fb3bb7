"""Sets a sandbox up: runs `sandbox.setup` there, so that what was sent can run.

A sandbox is set up once, and again after each sync that brought another version of a path of `setup_files`. That it is
due is recorded with what arrived, in one transaction, and a run is recorded before it is started: whatever dies, the
next process runs it anew. In the sandbox a second run, also one of another process, only waits for the end of the
first, and is asked for once more then.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from msgspec.structs import replace

from syncd.core.errors import SyncWarning
from syncd.core.settings import SandboxKeys
from syncd.core.text import redacted
from syncd.core.waiter import Waiter
from syncd.model.entry import ABSENT, ALL_BITS, same
from syncd.model.manifest import Manifest, changed_paths
from syncd.remote.failure import ApiStep, StepFailed
from syncd.remote.retry import WaitOut
from syncd.remote.target import Target
from syncd.sandbox.executions import Executions, NoReport, Purpose
from syncd.sandbox.look_request import was_emptied
from syncd.sandbox.protocol import SHORT_BOUNDS, told
from syncd.sandbox.setup_rules import (
    SetupRecord,
    SetupState,
    SetupStatus,
    begun,
    ended_with,
    setup_due,
    shown_command,
)
from syncd.selection.selection import PathPatterns
from syncd.store.state_db import Record, StateDb

_PURPOSE = Purpose(ApiStep.EXECUTION, "the set-up of the sandbox")
# The program waits so long for the end of an earlier run: a service may end an execution that waits for longer.
_WAIT_S = 60.0
_RUNS_AGAIN = "`syncd setup` runs it again, and shows its output"
# What a sandbox may take to start a run, and to tell of its end.
_GRACE_S = 120.0
_LONGEST_UNFINISHED_LINE = 1 << 20
# A client of the daemon is sent no more at once, and has so long to read it.
_TOLD_CHARACTERS, _TELLS_S = 1 << 14, 0.05
_LAST_LINES, _LONGEST_LINE = 20, 300
# Colours and cursor movements (ECMA-48), which a terminal obeys.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def brings_one_of(patterns: PathPatterns, before: Manifest, now: Manifest) -> bool:
    """Return True if a path that matches is of another content, kind or mode than before, new, or gone."""
    paths = (path for path in changed_paths(before, now) if path in patterns)
    return any(not same(before.get(path, ABSENT), now.get(path, ABSENT), ALL_BITS) for path in paths)


class SandboxSetup:
    """The set-up of one sandbox, and its last run, in memory and recorded."""

    def __init__(self, keys: SandboxKeys, db: StateDb, target: Target) -> None:
        self.timeout_s = keys.setup_timeout_seconds
        self._command, self.shown_command = keys.setup, shown_command(keys.setup)
        self._patterns = PathPatterns(keys.setup_files)
        self._stored = Record(db, "setup", SetupRecord, "the sandbox is set up once more", target.owner)
        self._last = self._stored.load()
        if self._last is not None and self._last.status.state is SetupState.RUNNING:  # the process that ran it has died
            self._last = replace(self._last, status=SetupStatus(), is_due=True)

    @property
    def is_due(self) -> bool:
        return setup_due(self._command, self._last)

    @property
    def status(self) -> SetupStatus:
        """The status of the last run of this command."""
        is_same = self._last is not None and self._last.command == self._command
        return self._last.status if self._last is not None and is_same else SetupStatus()

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning about the last run, if that failed."""
        if self.status.state is not SetupState.FAILED:
            return []
        what, remedy = f"the set-up of the sandbox ({self.status.command}) {self.status.why}", _RUNS_AGAIN
        if self._last is not None and self._last.has_emptied:
            remedy = "it is not run again before you correct it with `syncd config edit`, or run `syncd setup`"
        return [SyncWarning("setup", what, remedy)]

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that the last run printed."""
        return () if self._last is None else self._last.last_lines

    def note_arrived(self, before: Manifest, now: Manifest) -> None:
        """Note, in the transaction that is open, that the sandbox holds this now. Raises `OSError`."""
        if self._last is None or self._last.is_due or not self._command:
            return
        if brings_one_of(self._patterns, before, now):
            self._last = replace(self._last, is_due=True)
            self._stored.save(self._last)

    def note_emptied(self) -> None:
        """Note that the sandbox lost nearly all that was sent."""
        if self._last is not None and self._last.status.state is SetupState.RUNNING:
            self._save(replace(self._last, has_emptied=True))
        else:
            self.forget()

    def forget(self) -> None:
        """Forget the last run, as the sandbox is another one, or was emptied, unless by that run."""
        if self._last is not None and self._last.has_emptied:
            return
        self._last = None
        with contextlib.suppress(OSError):
            self._stored.remove()

    def begin(self, at: str) -> SetupRecord:
        """Record that a run begins now."""
        return self._save(begun(self._command, at))

    def note_end(self, ended: SetupRecord) -> None:
        """Record the end of a run. One in a sandbox that was emptied meanwhile is none."""
        if self._last is not None:
            self._save(ended_with(self._last, ended))

    def _save(self, record: SetupRecord) -> SetupRecord:
        self._last = record
        with contextlib.suppress(OSError):  # then the next process runs it once more
            self._stored.save(record)
        return record


class SetupRun:
    """Runs a set-up in one sandbox, and shows what it prints: `tell` gets whole lines, safe for a terminal.

    `tell_failure` gets the first failure in a row to ask how far it is, with the seconds to the next try.
    """

    def __init__(
        self, executions: Executions, waiter: Waiter, tell: Callable[[str], None], tell_failure: WaitOut
    ) -> None:
        self._executions = executions
        self._waiter = waiter
        self._clock = waiter.clock
        self._tell, self._tell_failure = tell, tell_failure
        self._is_failing = False
        self._begun_line = ""
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)

    def run(self, record: SetupRecord, timeout_s: float, sample: Sequence[str]) -> SetupRecord:
        """Run its command to the end, after that of an earlier run there, and return the record then.

        `sample` are paths that were sent. Where nearly all of them are gone then, it has emptied the sandbox.

        Raises `StepFailed` if it could not be started, or if nobody knows what became of it; `Superseded`, `Stop`.
        """
        lasts_s = timeout_s + _GRACE_S
        gives_up_s = self._clock.monotonic_s() + lasts_s
        request = {"command": record.command, "within_s": timeout_s, "wait_s": _WAIT_S, "sample": sample}
        while True:
            running = self._executions.begin(_PURPOSE, {"run": request}, SHORT_BOUNDS)
            answer = self._executions.answer(
                running,
                lambda report: told(report.run),
                timeout_s=_WAIT_S + lasts_s,
                hear=partial(self._take, running.name),
                wait_out=self._wait_out,
            )
            try:
                with answer as (report, _):
                    has_emptied = was_emptied(report.missing, len(sample))
            except NoReport:
                self._take(running.name, "\n")
                took_s = self._clock.monotonic_s() - running.asked.monotonic_s
                record = replace(record, last_lines=tuple(self._last_lines))
                return record.ended(f"was ended by the service after {took_s:.0f} s", None, took_s)
            record = replace(record, last_lines=tuple(self._last_lines), has_emptied=has_emptied)
            if report.state == "overdue":
                return record.ended(f"took longer than {timeout_s:g} s", None, report.seconds)
            if report.state == "ended":
                why = f"ended with {report.exit_code}" if report.exit_code else ""
                return record.ended(why, report.exit_code, report.seconds)
            if self._clock.monotonic_s() > gives_up_s:
                raise _PURPOSE.failed("an earlier set-up is still running in the sandbox")

    def _wait_out(self, failure: StepFailed, wait_s: float) -> None:
        if not self._is_failing:
            self._tell_failure(failure, wait_s)
        self._is_failing = True
        self._waiter.sleep(wait_s)

    def _take(self, name: str, text: str) -> None:
        """Show the lines that are complete by now, but for the report's."""
        self._is_failing = False
        *lines, begun = f"{self._begun_line}{text}".split("\n")
        self._begun_line = begun[-_LONGEST_UNFINISHED_LINE:]
        shown = [_shown(line) for line in lines if not line.startswith(f"{name}=")]
        self._last_lines.extend(line[:_LONGEST_LINE] for line in shown if line.strip())
        texts, length = [], 0
        for line in shown:
            texts.append(line[:_TOLD_CHARACTERS])
            length += len(texts[-1])
            if length > _TOLD_CHARACTERS:
                self._tell("\n".join(texts))
                self._waiter.sleep(_TELLS_S)
                texts, length = [], 0
        if texts:
            self._tell("\n".join(texts))


def _shown(line: str) -> str:
    """Return a line of output as it would end up on a terminal, without secrets and what a terminal obeys."""
    line = redacted(_ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]))
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)
