"""Runs the program in the sandbox, as the API documents it: uploads its archive, starts it, reads its report.

The report is in the program's output, or the file `report.json` beside its copies of files if it is too long for a log.
Nothing in either is trusted: it must be as long as its line says, have its digest, and say what was asked for.

An execution without an answer may run late, and remove files that are there again and wanted. So the program removes
nothing after a second of the sandbox's own clock, which is recorded durably with the paths before it is started; and
`settle`, which is called before anything is put there, waits for that second.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.archive_format import HEAD, deflated, headers, padding, tail, trailer
from syncd.archive.exported_files import ExtractedFiles, extract_files, keep_archive, why_not_kept
from syncd.archive.extraction import BadArchive
from syncd.core.clock import Moment
from syncd.core.errors import KeyRefused
from syncd.core.text import one_line
from syncd.core.waiter import TimeIsUp, Waiter
from syncd.model.entry import Entry, Kind, SeenEntry
from syncd.model.manifest import directories_above
from syncd.remote.api import Api
from syncd.remote.bucket import check_url, download
from syncd.remote.failure import ApiStep, FailureAction, RetrySettings, StepFailed
from syncd.remote.http_client import HttpClient, NoResponse
from syncd.remote.retry import WaitOut, with_retries
from syncd.remote.target import Target
from syncd.sandbox import program
from syncd.sandbox.look_request import LookAction, LookRequest, LookResult
from syncd.sandbox.protocol import SHORT_BOUNDS, Bounds, Report, decoded, look_result, look_values
from syncd.store.state_db import Record, StateDb, required_record

_log = logging.getLogger("syncd.executions")
_READ_S = 60.0
# The program takes a moment; a busy sandbox may start it late.
TIMEOUT_S = 120.0
# Between polls: five within the first five seconds, since a free account has two requests a second for all.
_POLL_WAITS_S = (0.4, 0.8, 1.2, *(20 * (2.0,)), 5.0)
# After a poll of what someone listens to that failed.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
FIRST_POLL_S = 0.1
_LARGEST_LOG = 8 << 20  # a longer report is in a file, but where the disk there is full
# A list of a million paths takes its time on a slow uplink.
_SLOWEST_BYTES_PER_S = 128 << 10  # before compression
_ENDED = ("completed", "failed")
# A longer wait is the retry loop's, during which the daemon handles other events.
_ENDING = RetrySettings(FIRST_POLL_S, 1.0, 1.5)
_FILE = "report.json"
_LINE = re.compile(r"=([0-9]{1,9}) ([0-9a-f]{64}) ([^\r\n]*)\r?\n")  # after the name of the execution
# Read once: an upgrade replaces the file, and this process would not understand what another version reports.
_PROGRAM = re.split(rb"(?m)^(?=# -- )", Path(program.__file__).read_bytes())
# Of the program, the parts that a verb needs, beside the first and the last one.
_PARTS_OF = {"look": (b"look",), "run": (b"run",), "commit": (b"git", b"commit"), "log": (b"git", b"log")}
# The sandbox's clock may be told in whole seconds, and a removal takes a moment.
_MARGIN_S = 2.0
# Where nobody can ask for the sandbox's clock, it is taken to be no further behind.
_CLOCKS_DIFFER_S = 60.0
# To ask for the sandbox's time, before something is put where a removal may still be under way.
_ASK_S = 10.0
Read = TypeVar("Read")
Extract = Callable[[Mapping[str, Entry]], ExtractedFiles]


class NoReport(StepFailed):
    """The program has ended without a report: something there, or the service, ended it."""


class Purpose(Struct, frozen=True):
    """The step that an execution is part of, and its description in messages."""

    step: ApiStep
    description: str

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Add the purpose to the failures raised within, which else name an execution alone."""
        try:
            yield
        except StepFailed as failure:
            failure.step, failure.message = self.step, f"{failure.message}, for {self.description}"
            raise

    @contextlib.contextmanager
    def limited(self, waiter: Waiter, seconds: float) -> Iterator[None]:
        """End what waits within after so many seconds, whatever it waits for. Raises `StepFailed` then."""
        ends_s = waiter.clock.monotonic_s() + seconds
        try:
            with waiter.within(seconds):
                yield
        except (TimeIsUp, StepFailed) as failure:
            is_late = waiter.clock.monotonic_s() >= ends_s or isinstance(failure, TimeIsUp)
            if not is_late or (isinstance(failure, StepFailed) and failure.action is FailureAction.REFUSED):
                raise
            raise self.failed(f"{self.description} takes longer than {seconds:.0f} s") from None

    def failed(self, message: str) -> StepFailed:
        """Return the failure of this step, which is tried again."""
        return StepFailed(self.step, FailureAction.RETRY, message)

    def invalid(self, why: str) -> StepFailed:
        """Return the failure for a report that no honest program makes."""
        return self.failed(f"the report of {self.description} is invalid ({why})")


_REMOVAL = Purpose(ApiStep.DELETE, "the removal of files there")
# It removes nothing: its step is the one that follows.
_LOOK = Purpose(ApiStep.INITIALIZE, "the look at the files there")


class Running(Struct, frozen=True):
    """An execution that was started, and the moment at which that was asked for."""

    name: str
    purpose: Purpose
    bounds: Bounds
    asked: Moment


class RunningLook(Struct, frozen=True):
    """A look that was begun at `began_s` of the monotonic clock. Its program ends `program_s` after it began.

    By the sandbox's clock it removes nothing after `not_after_s`.
    """

    running: Running
    request: LookRequest
    began_s: float
    program_s: float
    not_after_s: float


class PendingRemoval(Struct, frozen=True):
    """The paths that executions may remove, until that second of the sandbox's clock, which is `here_s` of ours.

    `name` is the execution's, empty if there are several.
    """

    name: str
    paths: frozenset[str]
    not_after_s: float
    here_s: float

    def may_remove(self, wanted: Collection[str]) -> bool:
        """Return True if it could remove one of the wanted paths, or a directory above one."""
        paths = self.paths
        return bool(paths) and not (paths.isdisjoint(wanted) and paths.isdisjoint(directories_above(wanted)))


class Executions:
    """Runs the program in one sandbox, one after the other.

    `pending` is the removal that is not known to have ended: it may be running, or start later.
    """

    def __init__(self, api: Api, client: HttpClient, waiter: Waiter, db: StateDb, target: Target) -> None:
        self._api = api
        self._client = client
        self._waiter = waiter
        self._clock = waiter.clock
        cost = "a removal that was started before may still run"
        self._record = Record(db, "executions", PendingRemoval, cost, target.owner)
        # The sandbox's clock, less this machine's seconds since boot; too little by as much as an answer took.
        self._ahead_s: float | None = None
        self.pending = self._record.load()

    # -- any verb

    def begin(self, purpose: Purpose, values: dict[str, Any], bounds: Bounds) -> Running:
        """Have the program do what these values ask for. Raises `StepFailed`, `Stop`; then it may be running."""
        name = _new_name()
        self.upload(purpose, self.upload_url(purpose, name), _new_files(name, values))
        return self._executed(purpose, name, bounds)

    @contextlib.contextmanager
    def answer(
        self,
        running: Running,
        read: Callable[[Report], Read],
        folder: str = "",
        *,
        timeout_s: float = TIMEOUT_S,
        fetch_s: float = 0.0,
        first_wait_s: float = 0.0,
        hear: Callable[[str], None] = lambda _: None,
        wait_out: WaitOut | None = None,
    ) -> Iterator[tuple[Read, Extract]]:
        """Wait for the report, and return what `read` makes of it, and a function that fetches files by their names.

        What is downloaded goes into the folder, which is private, and is gone at the end but for these files; without
        a folder a long report is invalid. The download may take `fetch_s` if that is longer than what is left. The
        function raises `StepFailed`, `Superseded`, `Stop`; then none of its files stays. `hear` gets the output as it
        comes. With `wait_out`, which waits after a poll that failed, none of them ends the wait.

        Raises `NoReport`; `StepFailed`, also after `timeout_s`, if the report is not whole, or if `read` raises
        `ValueError`; `NotKeptHere`, `Superseded`, `Stop`.
        """
        purpose, ends_s = running.purpose, self._clock.monotonic_s() + timeout_s
        with purpose.limited(self._waiter, timeout_s):
            self._waiter.sleep(first_wait_s)
            output = self._output(running, hear, wait_out)
        self._forget(running.name)
        with self._files(running, folder) as extract:
            with purpose.limited(self._waiter, max(fetch_s, ends_s - self._clock.monotonic_s())):
                content = report_in(running, output, extract if folder else None)
            try:
                report = decoded(content, running.bounds)
                self._ahead_s = report.ended_s - self._clock.boottime_s()
                found = read(report)
            except ValueError as failure:
                raise purpose.invalid(one_line(str(failure), 120)) from None
            yield found, extract

    def upload_url(self, purpose: Purpose, name: str) -> str:
        """Return the URL for the archive of an execution. Raises `StepFailed`, `Stop`."""
        with purpose.explaining():
            url = self._api.execution_upload_url(name)
            check_url(ApiStep.EXECUTION, url)
        return url

    def upload(self, purpose: Purpose, url: str, files: Mapping[str, bytes]) -> None:
        """Upload the archive of an execution. Raises `StepFailed`, `Stop`."""
        archive = _packed(files)
        headers = {"Content-Type": "application/gzip", "Content-Length": str(len(archive))}
        with purpose.explaining():
            try:
                answer = self._client.exchange("PUT", url, headers=headers, read_s=_READ_S, content=archive)
            except NoResponse as failure:
                message = f"the program was not uploaded ({failure})"
                raise StepFailed(ApiStep.EXECUTION, FailureAction.OFFLINE, message) from None
            if answer.status != 200:
                # Another URL, which the next try has, may mend all that no wait mends.
                message = f"Klavis' storage answered the program's upload with {answer.status}"
                raise StepFailed(ApiStep.EXECUTION, FailureAction.RETRY, message)

    def execute(self, purpose: Purpose, name: str) -> None:
        """Start it. Raises `StepFailed`, `Stop`; then it may be running, or start later."""
        with purpose.explaining():
            self._api.execute(name)

    def _executed(self, purpose: Purpose, name: str, bounds: Bounds) -> Running:
        asked = Moment.now(self._clock)  # its answer may take long, and the program be at its end by then
        self.execute(purpose, name)
        return Running(name, purpose, bounds, asked)

    def _output(self, running: Running, hear: Callable[[str], None], wait_out: WaitOut | None) -> str:
        """Return the output once the report is there, or once it has ended, successfully or not.

        Raises `StepFailed`, `Stop`.
        """
        output, cursor, waits_s = "", 0, iter(_POLL_WAITS_S)
        retries = RetrySettings(_FIRST_WAIT_S, _LONGEST_WAIT_S, inf)
        while True:
            poll = partial(self._api.execution_logs, running.name, cursor)
            with running.purpose.explaining():
                logs = poll() if wait_out is None else with_retries(poll, retries, self._clock, wait_out)
            hear(logs.logs)
            output += logs.logs
            is_last = logs.status in _ENDED and not (logs.logs and logs.cursor > cursor)
            if is_last or _line_in(running.name, output):
                return output
            cursor = max(cursor, logs.cursor)
            if len(output) > _LARGEST_LOG:
                raise running.purpose.invalid("its log is too long")
            self._waiter.poll_events()
            if logs.status not in _ENDED:  # also if it prints all the time, or the API would be polled all the time
                self._waiter.sleep(next(waits_s, _POLL_WAITS_S[-1]))

    @contextlib.contextmanager
    def _files(self, running: Running, folder: str) -> Iterator[Extract]:
        archive = os.path.join(folder, f"{running.name}.archive")
        most_bytes = running.bounds.most_copied_bytes + running.bounds.most_bytes

        def download_it() -> None:
            keep = lambda packed: keep_archive(packed, archive, most_bytes, self._waiter.poll_events)  # noqa: E731
            download(self._client, ApiStep.EXECUTION, self._api.export_artifacts(running.name), keep)

        def extract(expected: Mapping[str, Entry]) -> ExtractedFiles:
            prefix = os.path.join(folder, f"{running.name}-")
            with running.purpose.explaining():
                try:
                    if not os.path.lexists(archive):
                        # It may have printed its last line and not ended yet.
                        with_retries(download_it, _ENDING, self._clock, lambda _, wait_s: self._waiter.sleep(wait_s))
                    return extract_files(archive, expected, prefix, most_bytes, self._waiter.poll_events)
                except BadArchive as failure:
                    message = f"the archive of files from the sandbox cannot be read ({failure})"
                    raise StepFailed(ApiStep.EXECUTION, FailureAction.RETRY, message) from None
                except OSError as failure:
                    return ExtractedFiles(not_kept=why_not_kept(failure))

        try:
            yield extract
        finally:
            with contextlib.suppress(OSError):
                os.unlink(archive)

    # -- looks

    def start_look(
        self,
        request: LookRequest,
        timeout_s: float = TIMEOUT_S,
        program_s: float = TIMEOUT_S,
    ) -> RunningLook:
        """Start a look; its requests together take no longer than `timeout_s` beside the upload of a long list.

        Its program ends `program_s` after it began, and reports what it has. By the sandbox's clock it removes nothing
        that long after this call: one that was given up and begins late does nothing.

        Raises `StepFailed` if it surely or possibly was not started, `Superseded`, `Stop`, and `TryLater` if the
        state folder cannot record what is about to be removed there.
        """
        to_remove = request.with_action(LookAction.REMOVE)
        began_s = self._clock.monotonic_s()
        purpose, ends_s = _REMOVAL if to_remove else _LOOK, began_s + timeout_s
        name = _new_name()
        self._waiter.poll_events()
        with purpose.limited(self._waiter, timeout_s):
            url = self.upload_url(purpose, name)
        lasts_s = ends_s - self._clock.monotonic_s() + program_s
        not_after_s = self._now_there_s() + lasts_s if to_remove else 0.0
        files = _new_files(name, {"look": look_values(request, program_s, not_after_s)})
        upload_s = sum(map(len, files.values())) / _SLOWEST_BYTES_PER_S
        try:
            with purpose.limited(self._waiter, max(0.0, ends_s - self._clock.monotonic_s()) + upload_s):
                self.upload(purpose, url, files)
                del files  # a long list is not kept in memory until the look ends
                if to_remove:
                    here_s = self._clock.wall_s() + lasts_s
                    self._note(PendingRemoval(name, frozenset(to_remove), not_after_s, here_s))
                running = self._executed(purpose, name, Bounds.of_look(request))
        except StepFailed as failure:
            if failure.action is FailureAction.REFUSED:
                self._forget(name)
            raise
        return RunningLook(running, request, began_s, program_s, not_after_s)

    def finish_look(
        self,
        look: RunningLook,
        copies_folder: str,
        timeout_s: float = TIMEOUT_S,
        fetch_s: float = 0.0,
    ) -> LookResult:
        """Wait for a look at most so long from now on, and fetch what it copied into that folder, which is private.

        The fetch may take `fetch_s` if that is longer than what is left. The look is made once more where the sandbox's
        clock was guessed wrong, so that nothing was removed.

        Raises `StepFailed` if nobody could look, or if the report is not to be trusted (removals may have been done),
        `NotKeptHere` if there is no room for the report; also `Superseded`, `Stop`. If only the copies could
        not be fetched, the result says so; a copy for which there is no room is lacking.
        """
        running, request = look.running, look.request
        now_s = self._clock.monotonic_s()
        ends_s, first_wait_s = now_s + timeout_s, running.asked.monotonic_s + FIRST_POLL_S - now_s

        def read(report: Report) -> tuple[LookResult, bool]:
            found = look_result(report, request)
            return found, bool(found.failed) and report.ended_s > look.not_after_s

        answer = self.answer(
            running, read, copies_folder, timeout_s=timeout_s, fetch_s=fetch_s, first_wait_s=first_wait_s
        )
        with answer as ((result, is_void), extract):
            if not is_void:
                return self._with_copies(running, result, extract, max(fetch_s, ends_s - self._clock.monotonic_s()))
        left_s = ends_s - self._clock.monotonic_s()
        again = self.start_look(request, left_s, look.program_s)
        return self.finish_look(again, copies_folder, left_s, fetch_s)

    def _with_copies(self, running: Running, result: LookResult, extract: Extract, left_s: float) -> LookResult:
        copied = {entry.copy: entry for entry in (*result.differing.values(), *result.new.values()) if entry.copy}
        if not copied:
            return result
        try:
            with running.purpose.limited(self._waiter, left_s):  # all that is there may be GiBs
                return _with_files(result, extract(copied))
        except StepFailed as failure:
            return replace(_with_files(result, ExtractedFiles(not_kept=failure.message)), unfetched=failure)

    # -- removals that may come late

    def settle(self, wanted: Collection[str]) -> None:
        """Make sure that no look that was started before still removes one of these paths.

        Raises `StepFailed` if one may, `Superseded`, `Stop`.
        """
        pending = self.pending
        if pending is None or not pending.may_remove(wanted):
            return
        self._waiter.poll_events()
        try:
            if self._ahead_s is None:
                self._ask_time()
        except StepFailed as failure:
            if failure.refusal is KeyRefused or failure.action is FailureAction.OFFLINE:
                raise
            # The sandbox does not exist, or runs no program now: the wait must not last for ever. One refusal may be a
            # mistake, so it lasts until the removal is surely late.
            if self._clock.wall_s() > pending.here_s + _CLOCKS_DIFFER_S:
                _log.warning("cannot check if a removal there has ended: %s", failure)
                self._forget(pending.name)
                return
        if not self._is_over(pending):
            raise StepFailed(
                ApiStep.DELETE,
                FailureAction.RETRY,
                "a removal that was started in the sandbox before has not ended, and could remove what is sent now",
                "the sync goes on by itself, once that can do nothing any more",
                retry_after_s=None if self._ahead_s is None else self._ends_s(pending) - self._now_there_s() + 0.1,
            )
        self._forget(pending.name)

    def _is_over(self, pending: PendingRemoval) -> bool:
        """Return True if it removes nothing any more by the sandbox's clock, as far as that is known."""
        return self._ahead_s is not None and self._now_there_s() > self._ends_s(pending)

    def _ends_s(self, pending: PendingRemoval) -> float:
        return pending.not_after_s + _MARGIN_S

    def _ask_time(self) -> None:
        """Ask for the sandbox's time, by a program that does nothing else. Raises `StepFailed`, `Stop`."""
        with _REMOVAL.limited(self._waiter, _ASK_S):
            running = self.begin(_REMOVAL, {}, SHORT_BOUNDS)
            with self.answer(running, lambda report: report.ended_s, timeout_s=_ASK_S):
                pass

    def _now_there_s(self) -> float:
        """Return the sandbox's time; until a report has told it, the API's: this machine's may be wrong by hours."""
        return self._api.server_s() if self._ahead_s is None else self._clock.boottime_s() + self._ahead_s

    def _note(self, removal: PendingRemoval) -> None:
        """Record a removal that is about to be started. Raises `TryLater`; then it must not be."""
        earlier = self.pending
        if earlier is not None and not self._is_over(earlier):
            paths = earlier.paths | removal.paths
            not_after_s, here_s = max(earlier.not_after_s, removal.not_after_s), max(earlier.here_s, removal.here_s)
            removal = PendingRemoval("", paths, not_after_s, here_s)
        with required_record("nothing is removed"):
            self._record.save(removal)
        self.pending = removal

    def _forget(self, name: str) -> None:
        """Forget a removal that has ended."""
        if self.pending is not None and self.pending.name == name:
            self.pending = None
            with contextlib.suppress(OSError):  # this costs the next process a request
                self._record.remove()


def report_in(running: Running, output: str, extract: Extract | None) -> bytes:
    """Return the report, as long as its line in the output says and with its digest.

    It is in that line, or, if it is too long for a log or that was cut, in a file; without `extract` nobody reads that.
    Nothing of one that is longer than its bounds is read. Raises `StepFailed` if it is not whole, `NotKeptHere`, and
    what `extract` raises.
    """
    purpose, line = running.purpose, _line_in(running.name, output) or _line_in(running.name, f"{output}\n")
    if line is None:
        last = output.strip().splitlines()[-1:] or ["nothing was printed"]
        why = f"{purpose.description} did not come to its end ({one_line(last[0], 120)})"
        raise NoReport(purpose.step, FailureAction.RETRY, why)
    size_bytes, digest, content = int(line[1]), bytes.fromhex(line[2]), line[3].encode("ascii", "replace")
    if size_bytes > running.bounds.most_bytes:
        raise purpose.invalid("it is too long")
    if len(content) == size_bytes and hashlib.sha256(content).digest() == digest:
        return content
    if extract is None:
        raise purpose.failed(f"the log lacks a part of the report of {purpose.description}")
    path = extract({_FILE: Entry(Kind.FILE, size_bytes=size_bytes, digest=digest)}).path(_FILE)
    if not path:
        raise purpose.invalid(f"no {_FILE} is as the program wrote it")
    with open(path, "rb") as file:
        os.unlink(path)
        return file.read()


def _line_in(name: str, output: str) -> re.Match[str] | None:
    """Return the line of the report, with its length, SHA-256 and text, once it is there, whole."""
    return next((line for line in _LINE.finditer(output) if output.endswith(name, 0, line.start())), None)


def _with_files(result: LookResult, files: ExtractedFiles) -> LookResult:
    """Return the result with the copies on this machine; a copy of another content is of a file that changes."""

    def complete(entries: Mapping[str, SeenEntry]) -> dict[str, SeenEntry]:
        return {
            path: replace(entry, copy=files.paths.get(entry.copy, ""), unstable=entry.copy in files.wrong)
            if entry.copy
            else entry
            for path, entry in entries.items()
        }

    return replace(result, differing=complete(result.differing), new=complete(result.new), not_kept=files.not_kept)


def program_text(verbs: Collection[str]) -> bytes:
    """Return the program that is sent: what these verbs do not need stays here."""
    first, *parts, last = _PROGRAM
    needed = {name for verb in verbs for name in _PARTS_OF.get(verb, ())}
    return first + b"".join(part for part in parts if part.split(maxsplit=3)[2] in needed) + last


def _new_name() -> str:
    """Return a name that no other execution has; it is the mark of its report, too."""
    return f"syncd-{secrets.token_hex(8)}"


def _new_files(name: str, values: dict[str, Any]) -> dict[str, bytes]:
    """Return the files of the archive of the execution of that name."""
    request = json.dumps({"word": name, **values}, separators=(",", ":")).encode("ascii")
    return {"main.py": program_text(values), "request.json": request}


def _packed(files: Mapping[str, bytes]) -> bytes:
    """Return the archive of these files."""
    parts: list[bytes] = []
    for name, content in files.items():
        parts += headers(name, Entry(Kind.FILE, 0o644), len(content)), content, padding(len(content))
    parts.append(trailer(sum(map(len, parts))))
    piece, whole = deflated(b"".join(parts))
    return HEAD + piece + tail(whole)
