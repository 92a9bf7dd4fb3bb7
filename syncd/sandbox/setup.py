"""Sets a sandbox up: runs `sandbox.setup` there, so that what was sent can run.

A sandbox is set up once, and again after each sync that brought another version of a path of `setup_files`. That it is
due is recorded with what arrived, in one transaction, and a run is recorded before it is started: whatever dies, the
next process runs it anew. In the sandbox a lock keeps a second run waiting, also one of another process.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import shlex
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.choices import SetupState
from syncd.core.errors import SyncWarning
from syncd.core.settings import SandboxKeys
from syncd.core.text import one_line
from syncd.core.waiter import Waiter
from syncd.model.manifest import Manifest, removed_paths, replaced_entries
from syncd.remote.api import Api
from syncd.remote.failure import ApiStep, FailureAction, StepFailed, backoff_limit_s
from syncd.remote.target import Target
from syncd.sandbox.executions import ENDED, Executions, Purpose, Running, report_in
from syncd.sandbox.protocol import RUN_BOUNDS, RunReport, decoded
from syncd.selection.selection import PathPatterns
from syncd.store.state_db import Record, StateDb

_log = logging.getLogger("syncd.setup")
_PURPOSE = Purpose(ApiStep.EXECUTION, "the set-up of the sandbox")
# The program waits so long for the end of an earlier run, and is started again then: a service may end an execution
# that waits for longer.
_WAIT_S = 60.0
# What a sandbox may take to start a run, and to tell of its end.
_GRACE_S = 120.0
# Between polls: a tenth of the time that it took so far.
_FIRST_POLL_S, _LONGEST_POLL_S, _POLL_SHARE = 0.4, 5.0, 10
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
# Of what is printed between two polls; a client of the daemon is sent no more at once.
_LONGEST_TEXT, _TOLD_CHARACTERS = 1 << 22, 1 << 14
_LAST_LINES, _LONGEST_LINE = 20, 300
_LONGEST_COMMAND = 60
# Colours and cursor movements (ECMA-48), which a terminal obeys.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class SetupEnd(Struct, frozen=True):
    """The end of a run: `why` says what failed, and is empty if nothing did. `exit_code` is None if none is known."""

    why: str = ""
    exit_code: int | None = None
    seconds: float | None = None
    last_lines: tuple[str, ...] = ()


class SetupRecord(Struct, frozen=True):
    """The last run of a set-up in one sandbox, of the command with that digest; `began_s` is of the wall clock.

    `is_due`: it is to be run again, as what it depends on has changed since it began, or as it could not be run.
    """

    command: bytes
    state: SetupState
    began_s: float
    end: SetupEnd = SetupEnd()
    is_due: bool = False


def setup_due(command: Sequence[str], last: SetupRecord | None) -> bool:
    """Return True if a sandbox that was synced to is to be set up; `last` is the last run there."""
    return bool(command) and (last is None or last.is_due or last.command != digest_of(command))


def brings_one_of(patterns: PathPatterns, before: Manifest, now: Manifest) -> bool:
    """Return True if a path that matches is of another content or kind than before, new, or gone."""
    paths = (*replaced_entries(before, now), *removed_paths(before, now))
    return any(path in patterns and _version(before, path) != _version(now, path) for path in paths)


def _version(manifest: Manifest, path: str) -> object:
    entry = manifest.get(path)
    return None if entry is None else (entry.kind, entry.mode, entry.size_bytes, entry.target, entry.digest)


def digest_of(command: Sequence[str]) -> bytes:
    return hashlib.sha256("\0".join(command).encode("utf-8", "surrogatepass")).digest()


def shown_command(command: Sequence[str]) -> str:
    """Return a command for people, as a shell would take it; a long one is cut."""
    return one_line(shlex.join(command), _LONGEST_COMMAND)


class SandboxSetup:
    """The runs of the set-up of one sandbox, as far as they are known, in memory and recorded."""

    def __init__(self, keys: SandboxKeys, db: StateDb, target: Target) -> None:
        self.command = keys.setup
        self.timeout_s = keys.setup_timeout_seconds
        self._patterns = PathPatterns(keys.setup_files)
        self._stored = Record(db, "setup", SetupRecord, "the sandbox is set up once more", target.owner)
        self._record = self._stored.load()
        if self._record is not None and self._record.state is SetupState.RUNNING:  # the process that ran it has died
            self._record = replace(self._record, state=SetupState.NONE, is_due=True)

    @property
    def is_due(self) -> bool:
        return setup_due(self.command, self._record)

    @property
    def last(self) -> SetupRecord | None:
        """The last run of this command, or the one under way; None if there is none."""
        is_same = self._record is not None and self.command and self._record.command == digest_of(self.command)
        return self._record if is_same else None

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning about the last run, if that failed."""
        if self.last is None or self.last.state is not SetupState.FAILED:
            return []
        what = f"the set-up of the sandbox ({shown_command(self.command)}) {self.last.end.why}"
        return [SyncWarning("setup", what, "`syncd setup` runs it again, and shows its output")]

    def note_arrived(self, before: Manifest | None, now: Manifest) -> None:
        """Note, in the transaction that is open, that the sandbox holds this now. Raises `OSError`."""
        record = self._record
        if record is None or record.is_due or not self.command:
            return
        if brings_one_of(self._patterns, before or Manifest(), now):
            self._record = replace(record, is_due=True)
            self._stored.save(self._record)

    def forget(self) -> None:
        """Forget the runs: the sandbox is another one, or was emptied."""
        self._record = None
        with contextlib.suppress(OSError):
            self._stored.remove()

    def begin(self, wall_s: float) -> None:
        """Record that a run begins now."""
        self._record = SetupRecord(digest_of(self.command), SetupState.RUNNING, wall_s)
        self._save()

    def note_end(self, end: SetupEnd, *, again: bool = False) -> None:
        """Record the end of the run; `again`: it is still due. One of a sandbox that was emptied meanwhile is none."""
        if self._record is not None:
            state = SetupState.FAILED if end.why else SetupState.DONE
            self._record = replace(self._record, state=state, end=end, is_due=self._record.is_due or again)
            self._save()

    def _save(self) -> None:
        assert self._record is not None  # noqa: S101 - both callers have set it
        with contextlib.suppress(OSError):  # then the next process runs it once more
            self._stored.save(self._record)


class SetupRun:
    """Runs a set-up in one sandbox, and shows what it prints: `tell` gets whole lines, safe for a terminal."""

    def __init__(self, api: Api, executions: Executions, waiter: Waiter, tell: Callable[[str], None]) -> None:
        self._api = api
        self._executions = executions
        self._waiter = waiter
        self._clock = waiter.clock
        self._tell = tell
        self._begun_line = self._report_lines = ""
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)

    def run(self, command: Sequence[str], timeout_s: float) -> SetupEnd:
        """Run it to its end, after that of an earlier run there.

        Raises `StepFailed` if it could not be started, or if nobody knows what became of it; `Superseded`, `Stop`.
        """
        gives_up_s = self._clock.monotonic_s() + timeout_s + _GRACE_S
        request = {"command": command, "within_s": timeout_s, "wait_s": _WAIT_S}
        while True:
            running = self._executions.begin(_PURPOSE, {"run": request}, RUN_BOUNDS)
            report = self._followed(running, running.started_s + _WAIT_S + timeout_s + _GRACE_S)
            if report is None:
                seconds = self._clock.monotonic_s() - running.started_s
                return self._end(f"was ended by the service after {seconds:.0f} s", None, seconds)
            if report.state == "overdue":
                return self._end(f"took longer than {timeout_s:g} s", None, report.seconds)
            if report.state == "ended":
                why = f"ended with {report.exit_code}" if report.exit_code else ""
                return self._end(why, report.exit_code, report.seconds)
            if self._clock.monotonic_s() > gives_up_s:
                raise _PURPOSE.failed("an earlier set-up is still running in the sandbox")

    def _end(self, why: str, exit_code: int | None, seconds: float) -> SetupEnd:
        return SetupEnd(why, exit_code, round(seconds, 1), tuple(self._last_lines))

    def _followed(self, running: Running, gives_up_s: float) -> RunReport | None:
        """Show the output until the end, and return the report; None if there is none."""
        cursor, failures = 0, 0
        while True:
            try:
                logs = self._api.execution_logs(running.name, cursor)
            except StepFailed as failure:
                if failure.action is FailureAction.REFUSED or self._clock.monotonic_s() > gives_up_s:
                    raise
                failures += 1
                wait_s = backoff_limit_s(failures, _FIRST_WAIT_S, _LONGEST_WAIT_S)
                self._waiter.sleep(max(wait_s, failure.retry_after_s or 0.0))
                continue
            failures = 0
            has_ended = logs.status in ENDED and logs.cursor <= cursor
            cursor = max(cursor, logs.cursor)
            self._take(running.name, f"{logs.logs}\n" if has_ended else logs.logs)
            if self._report_lines or has_ended:
                return self._report(running)
            now_s = self._clock.monotonic_s()
            if now_s > gives_up_s:
                raise _PURPOSE.failed("the sandbox does not tell of its end")
            if logs.status not in ENDED:
                wait_s = (now_s - running.started_s) / _POLL_SHARE
                self._waiter.sleep(min(_LONGEST_POLL_S, max(_FIRST_POLL_S, wait_s)))

    def _take(self, name: str, text: str) -> None:
        """Show the lines that are complete by now; those of the report are kept."""
        *lines, self._begun_line = f"{self._begun_line}{text}"[-_LONGEST_TEXT:].split("\n")
        self._report_lines += "".join(f"{line}\n" for line in lines if line.startswith(f"{name}="))
        shown = [_shown(line) for line in lines if not line.startswith(f"{name}=")]
        self._last_lines.extend(line[:_LONGEST_LINE] for line in shown if line.strip())
        if any(shown):
            self._tell("\n".join(shown)[-_TOLD_CHARACTERS:])

    def _report(self, running: Running) -> RunReport | None:
        lines, self._report_lines, self._begun_line = self._report_lines, "", ""
        try:
            return decoded(report_in(running, lines, None), running.bounds).run if lines else None
        except ValueError as failure:
            raise _PURPOSE.invalid(one_line(str(failure), 120)) from None


def _shown(line: str) -> str:
    """Return a line of output as it would end up on a terminal, without what a terminal obeys."""
    line = _ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2])
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)
