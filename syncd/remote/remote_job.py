"""Runs a program of syncd's in the sandbox, as the API documents it: uploads its archive, starts it, reads its log.

Its report is in its output, or the file `report.json` beside its copies of files if it is too long for a log. Nothing
in either is trusted: this only sees that they are whole; who asked checks what the report says.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar

from msgspec import Struct

from syncd.archive.tar_reader import BadArchive
from syncd.core.errors import SandboxNotFound
from syncd.core.text import one_line
from syncd.core.waiter import TimeIsUp, Waiter
from syncd.model.entry import Entry, Kind
from syncd.remote.api import Api
from syncd.remote.artifacts import (
    ExtractedFiles,
    NotKeptHere,
    extract_files,
    keep_archive,
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
_FILE = "report.json"
_END = re.compile(r"=(log|file) ([0-9]{1,9}) ([0-9a-f]{64})\r?\n")
Report = TypeVar("Report")
Extract = Callable[[Mapping[str, Entry]], ExtractedFiles]


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

    def report_end(self, output: str) -> re.Match[str] | None:
        """Return the last line of the report, with its place, length and SHA-256, once it is there, whole."""
        return _END.match(output, max(0, output.rfind(f"{self.name}=")) + len(self.name))

    def report(self, output: str, read: Callable[[Any], Report], extract: Extract | None = None) -> Report:
        """Return what `read` makes of the report, as long as the output says and with its digest.

        It is in parts in the output, or in a file if it is too long for a log. Raises `StepFailed` if it is not whole,
        or if `read` raises `ValueError`; `NotKeptHere`, and what `extract` raises.
        """
        end = self.report_end(output)
        if end is None:
            raise self._incomplete(output)
        size_bytes, digest = int(end[2]), bytes.fromhex(end[3])
        if end[1] == "log":
            content = "".join(re.findall(rf"(?m)^{self.name}<(.*)>\r?$", output)).encode("ascii", "replace")
            if len(content) != size_bytes or hashlib.sha256(content).digest() != digest:
                raise self._incomplete(output)
        elif extract is None or size_bytes > _LARGEST_REPORT:
            raise self.invalid("it is too long")
        else:
            path = extract({_FILE: Entry(Kind.FILE, size_bytes=size_bytes, digest=digest)}).path(_FILE)
            if not path:
                raise self.invalid(f"no {_FILE} is as the program wrote it")
            with open(path, "rb") as file:
                os.unlink(path)
                content = file.read()
        try:
            return read(json.loads(content))
        except (ValueError, RecursionError) as failure:
            raise self.invalid(one_line(str(failure), 120)) from None

    def invalid(self, why: str) -> StepFailed:
        """Return the failure for a report that no honest program makes."""
        message = f"the report of {self.purpose.description} is invalid ({why})"
        return StepFailed(self.purpose.step, FailureAction.RETRY, message)

    def _incomplete(self, output: str) -> StepFailed:
        """Return the failure of a job whose output lacks its end, or a part."""
        last = output.strip().splitlines()[-1:] or ["nothing was printed"]
        message = f"{self.purpose.description} did not come to its end ({one_line(last[0], 120)})"
        return StepFailed(self.purpose.step, FailureAction.RETRY, message)


def new_job(
    purpose: Purpose, program: ModuleType, request: dict[str, Any], imported: Iterable[ModuleType] = ()
) -> RemoteJob:
    """Return a job that runs the program with a request for it, under a name that no other execution has.

    `imported` are the modules of ours that the program imports; there, they are the only ones of their packages.

    The program finds the request in the file `request.json` beside it, and the marker of its output in `word`. The
    request is used up: a long list is in memory once, not in each of its forms.
    """
    name = f"syncd-{secrets.token_hex(8)}"
    parts = [_json({"word": name})[:-1]]
    while request:
        parts += b",", _json(dict([request.popitem()]))[1:-1]
    content = b"".join((*parts, b"}"))
    del parts
    files = {"main.py": _source(program), "request.json": content}
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

    def has_ended(self, name: str, purpose: Purpose) -> bool | None:
        """Return True if the execution of that name has ended, successfully or not. Raises `StepFailed`, `Stop`.

        None: the API knows none; it was never started, or its sandbox is gone.
        """
        try:
            with purpose.explaining():
                return self._api.execution_status(name) in _ENDED
        except StepFailed as failure:
            if failure.action is FailureAction.REFUSED and issubclass(failure.refusal, SandboxNotFound):
                return None
            raise

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
        first_wait_s: float = 0.0,
    ) -> str:
        """Return the job's output once its report is there, or once it has ended, successfully or not.

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
            if job.report_end(output) or (logs.status in _ENDED and logs.cursor <= cursor):
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
    def files(
        self, job: RemoteJob, folder: str, most_copied_bytes: int, check: Callable[[], None]
    ) -> Iterator[Extract]:
        """Return a function that fetches files that the job left, by their names.

        What is downloaded goes into the folder, and is gone at the end but for these files. The function raises
        `StepFailed`, `Stop`, and what `check` raises; then none of its files stays.
        """
        archive = os.path.join(folder, f"{job.name}.archive")
        most_bytes = most_copied_bytes + _LARGEST_REPORT

        def extract(expected: Mapping[str, Entry]) -> ExtractedFiles:
            try:
                if not os.path.lexists(archive):
                    self._fetch(job, archive, most_bytes, check)
                with _archive_of(job):
                    return extract_files(archive, expected, os.path.join(folder, f"{job.name}-"), most_bytes, check)
            except NotKeptHere as failure:
                return ExtractedFiles(not_kept=failure.message)

        try:
            yield extract
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
                if self.has_ended(job.name, job.purpose) is not False:
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
