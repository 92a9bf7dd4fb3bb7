"""Runs a program of syncd's in the sandbox, as the API documents it: uploads its archive, starts it, reads its log.

Its report is its output, or the file `report.json` beside its copies of files if it is too long for a log. Nothing in
either is trusted: this only sees that they are whole; who asked checks what the rows say.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from types import ModuleType
from typing import Any

from msgspec import Struct

from syncd.archive.tar_reader import BadArchive
from syncd.core.errors import SandboxNotFound
from syncd.core.text import one_line
from syncd.core.waiter import TimeIsUp, Waiter
from syncd.remote.api import Api
from syncd.remote.artifacts import (
    ExpectedCopy,
    ExtractedCopies,
    NotKeptHere,
    extract_copies,
    keep_archive,
    read_named,
    unwritable,
)
from syncd.remote.bucket import check_url, download
from syncd.remote.failure import ApiStep, FailureAction, StepFailed, classify_bucket_status
from syncd.remote.http_client import HttpClient, NoResponse

_READ_S = 60.0
# The program takes a moment; a busy sandbox may start it late.
JOB_TIMEOUT_S = 120.0
# Between polls: five within the first five seconds, since a free account has two requests a second for all.
_POLL_WAITS_S = (0.4, 0.8, 1.2, 2.0)
FIRST_POLL_S = 0.1
_LARGEST_LOG = 64 << 20
# A list of a million paths takes its time on a slow uplink.
_SLOWEST_BYTES_PER_S = 128 << 10  # before compression
_ENDED = ("completed", "failed")
# Three seconds in all; a longer wait is the retry loop's, during which the daemon handles other events.
SETTLING_POLLS = 6
_LARGEST_REPORT = 256 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


class JobStage(Enum):
    """The stage of an execution."""

    UNKNOWN = "the API knows none: it was never started, or its sandbox is gone"
    UNDER_WAY = "running, or waiting to start"
    ENDED = "ended, successfully or not"


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
            raise StepFailed(
                self.step,
                failure.action,
                f"{failure.message}, for {self.description}",
                failure.hint,
                retry_after_s=failure.retry_after_s,
                refusal=failure.refusal,
                possibly_applied=failure.possibly_applied,
            ) from None

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
            message = f"{self.description} takes longer than {seconds:.0f} s"
            raise StepFailed(self.step, FailureAction.RETRY, message) from None


class RemoteJob(Struct, frozen=True):
    """A program to run in the sandbox. `files` are its `main.py` and the files beside it, by path."""

    name: str
    purpose: Purpose
    files: Mapping[str, bytes]

    @property
    def upload_s(self) -> float:
        """The longest time that its upload takes where anything moves."""
        return sum(map(len, self.files.values())) / _SLOWEST_BYTES_PER_S

    def rows(self, output: str) -> Iterator[list[Any]]:
        """Yield the JSON arrays that the program printed, without the marker that tells them from other output."""
        for line in output.splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, list) and row[:1] == [self.name]:
                yield row[1:]

    def has_row(self, output: str, label: str) -> bool:
        """Return True if the program printed a row that begins with this label, whole."""
        start = output.rfind(f'["{self.name}","{label}"')
        return start >= 0 and output.find("\n", start) >= 0

    def incomplete(self, output: str) -> StepFailed:
        """Return the failure of a job whose output lacks its end."""
        last = output.strip().splitlines()[-1:] or ["nothing was printed"]
        message = f"{self.purpose.description} did not come to its end ({one_line(last[0], 120)})"
        return StepFailed(self.purpose.step, FailureAction.RETRY, message)


def new_job(
    purpose: Purpose, program: ModuleType, list_name: str, request: dict[str, Any], imported: Iterable[ModuleType] = ()
) -> RemoteJob:
    """Return a job that runs the program with a request for it, under a name that no other execution has.

    `imported` are the modules of ours that the program imports; there, they are the only ones of their packages.

    The program finds the request in the file `list_name` beside it, and the marker of its output in `word`. The request
    is used up: a long list is in memory once, not in each of its forms.
    """
    name = f"syncd-{secrets.token_hex(8)}"
    parts = [_json({"word": name})[:-1]]
    while request:
        parts += b",", _json(dict([request.popitem()]))[1:-1]
    content = b"".join((*parts, b"}"))
    del parts
    files = {"main.py": _source(program), list_name: content}
    for module in imported:
        path = f"{module.__name__.replace('.', '/')}.py"
        folder = path
        while folder := folder.rpartition("/")[0]:
            files[f"{folder}/__init__.py"] = b""
        files[path] = _source(module)
    return RemoteJob(name, purpose, files)


def _source(module: ModuleType) -> bytes:
    with open(module.__file__ or "", "rb") as file:
        return file.read()


class JobRunner:
    """Runs jobs in one sandbox, one after the other."""

    def __init__(self, api: Api, client: HttpClient, waiter: Waiter) -> None:
        self._api = api
        self._client = client
        self._waiter = waiter
        self._clock = waiter.clock

    def run(self, job: RemoteJob, check: Callable[[], None] = lambda: None, timeout_s: float = JOB_TIMEOUT_S) -> str:
        """Run the job, and return its output once it has ended, successfully or not. `check` is called at each poll.

        All its requests together take no longer than `timeout_s` beside the upload. Raises `StepFailed`, `Stop`; then
        it may be running, or start later.
        """
        with job.purpose.limited(self._waiter, timeout_s + job.upload_s):
            self.upload(job)
            self.start(job)
            return self.output(job, check, timeout_s)

    def upload(self, job: RemoteJob, region: str = "") -> None:
        """Upload the job's archive in place of any earlier one of that name; in `region`, if one is named.

        Raises `StepFailed`, `Stop`.
        """
        with job.purpose.explaining():
            url = self._api.execution_upload_url(job.name, region)
            check_url(ApiStep.EXECUTION, url)
            self._put(url, _packed(job.files))

    def start(self, job: RemoteJob) -> None:
        """Start the job. Raises `StepFailed`, `Stop`; then it may be running, or start later."""
        with job.purpose.explaining():
            self._api.execute(job.name)

    def stage(self, name: str, purpose: Purpose) -> JobStage:
        """Return the stage of the execution of that name. Raises `StepFailed`, `Stop`."""
        try:
            with purpose.explaining():
                status = self._api.execution_status(name)
        except StepFailed as failure:
            if failure.action is FailureAction.REFUSED and issubclass(failure.refusal, SandboxNotFound):
                return JobStage.UNKNOWN
            raise
        return JobStage.ENDED if status in _ENDED else JobStage.UNDER_WAY

    def _put(self, url: str, archive: bytes) -> None:
        headers = {"Content-Type": "application/gzip", "Content-Length": str(len(archive))}
        try:
            answer = self._client.exchange("PUT", url, headers=headers, read_s=_READ_S, content=archive)
        except NoResponse as failure:
            raise StepFailed(
                ApiStep.EXECUTION, FailureAction.OFFLINE, f"the program was not uploaded ({failure})"
            ) from None
        if answer.status != 200:
            action = classify_bucket_status(answer.status, "")
            action = FailureAction.RETRY if action is FailureAction.RENEW_URL else action
            raise StepFailed(
                ApiStep.EXECUTION, action, f"the bucket answered the program's upload with {answer.status}"
            )

    def output(
        self,
        job: RemoteJob,
        check: Callable[[], None] = lambda: None,
        timeout_s: float = JOB_TIMEOUT_S,
        *,
        first_wait_s: float = 0.0,
        is_complete: Callable[[str], bool] = lambda _: False,
    ) -> str:
        """Return the job's output once it has ended, successfully or not, or once it is complete.

        The first poll is after `first_wait_s`. Raises `StepFailed`, also after `timeout_s`, and `Stop`.
        """
        output, cursor, polls = "", 0, 0
        ends_s = self._clock.monotonic_s() + timeout_s
        if first_wait_s > 0:
            self._waiter.sleep(min(first_wait_s, timeout_s))
        while True:
            with job.purpose.explaining():
                logs = self._api.execution_logs(job.name, cursor)
            output += logs.logs
            if is_complete(output) or (logs.status in _ENDED and logs.cursor <= cursor):
                return output
            cursor = max(cursor, logs.cursor)
            left_s = ends_s - self._clock.monotonic_s()
            if left_s <= 0 or len(output) > _LARGEST_LOG:
                message = f"{job.purpose.description} takes longer than {timeout_s:.0f} s"
                raise StepFailed(job.purpose.step, FailureAction.RETRY, message)
            check()
            if logs.status not in _ENDED:  # also if it prints all the time, or the API would be polled all the time
                self._waiter.sleep(min(left_s, poll_wait_s(polls)))
                polls += 1

    @contextlib.contextmanager
    def report(
        self, job: RemoteJob, output: str, folder: str, most_copied_bytes: int, check: Callable[[], None]
    ) -> Iterator[JobReport]:
        """Open the report of a job with this output. What is downloaded goes into the folder, and is gone at the end.

        Raises `StepFailed` if the report is not whole, `NotKeptHere`, `Stop`, and what `check` raises.
        """
        archive = os.path.join(folder, f"{job.name}.archive")
        most_bytes = most_copied_bytes + _LARGEST_REPORT

        def fetch() -> None:
            if not os.path.lexists(archive):
                self._fetch(job, archive, most_bytes, check)

        try:
            rows = list(job.rows(output))
            if rows and rows[-1][:1] == ["report"]:
                fetch()
                rows = _long_report(job, rows[-1], archive)
            if not rows or rows[-1][:1] != ["done"]:
                raise job.incomplete(output)
            yield JobReport(job, rows, archive, most_bytes, fetch, check)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(archive)

    def _fetch(self, job: RemoteJob, path: str, most_bytes: int, check: Callable[[], None]) -> None:
        """Download what the program left. It may have printed its last line and not ended yet: then wait for it."""
        wait_s = FIRST_POLL_S
        for _ in range(SETTLING_POLLS):
            try:
                self._download(job, path, most_bytes, check)
            except StepFailed as failure:
                if failure.action is not FailureAction.RETRY:
                    raise
                if self.stage(job.name, job.purpose) is not JobStage.UNDER_WAY:
                    if failure.possibly_applied:
                        raise
                    break  # it may have ended just after a request that was refused for it
            else:
                return
            check()
            self._waiter.sleep(wait_s)
            wait_s *= 2
        self._download(job, path, most_bytes, check)

    def _download(self, job: RemoteJob, path: str, most_bytes: int, check: Callable[[], None]) -> None:
        with _archive_of(job):
            download(
                self._client,
                ApiStep.EXECUTION,
                self._api.export_artifacts(job.name),
                lambda packed: keep_archive(packed, path, most_bytes, check),
            )


@contextlib.contextmanager
def _archive_of(job: RemoteJob) -> Iterator[None]:
    """Explain failures with the archive of what the job left. Raises `StepFailed`, `NotKeptHere`."""
    with job.purpose.explaining():
        try:
            yield
        except BadArchive as failure:
            message = f"the archive of files from the sandbox cannot be read ({failure})"
            raise StepFailed(ApiStep.EXECUTION, FailureAction.RETRY, message) from None
        except OSError as failure:
            raise unwritable(failure) from None


class JobReport(Struct, frozen=True):
    """One report: its rows, of which the last is `done`, and the copies, which `fetch` puts into `archive`."""

    job: RemoteJob
    rows: list[list[Any]]
    archive: str
    most_bytes: int
    fetch: Callable[[], None]
    check: Callable[[], None]

    def extract(self, expected: Mapping[int, ExpectedCopy]) -> ExtractedCopies:
        """Fetch these copies. Raises `StepFailed`, and what `check` raises; then none of them stays."""
        if not expected:
            return ExtractedCopies()
        try:
            self.fetch()
            with _archive_of(self.job):
                return extract_copies(self.archive, expected, self.most_bytes, self.check)
        except NotKeptHere as failure:
            return ExtractedCopies(not_kept=failure.message)


def place_of(job: RemoteJob, folder: str, number: int) -> str:
    """Return the path of a copy in the folder."""
    return os.path.join(folder, f"{job.name}-{number}")


def is_complete(job: RemoteJob, output: str) -> bool:
    """Return True if the last row of the report is there, whole."""
    return job.has_row(output, "done") or job.has_row(output, "report")


def invalid_report(job: RemoteJob, why: str) -> StepFailed:
    """Return the failure for a report that no honest program makes."""
    message = f"the report of {job.purpose.description} is invalid ({why})"
    return StepFailed(job.purpose.step, FailureAction.RETRY, message)


def _long_report(job: RemoteJob, row: list[Any], archive: str) -> list[list[Any]]:
    """Return the rows of a report that is too long for a log. Raises `StepFailed`."""
    match row:
        case [_, int(size_bytes), str(digest)] if 0 <= size_bytes <= _LARGEST_REPORT and _SHA256.fullmatch(digest):
            with _archive_of(job):
                content = read_named(archive, "report.json", size_bytes, bytes.fromhex(digest))
            return list(job.rows(content.decode("ascii", "replace")))
    raise invalid_report(job, "a value has another type")


def poll_wait_s(polls: int) -> float:
    """Return the wait after so many earlier waits between polls."""
    return _POLL_WAITS_S[min(polls, len(_POLL_WAITS_S) - 1)]


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def _packed(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()
