"""Runs a program of syncd's in the sandbox, as the API documents it: uploads its archive, starts it, reads its log.

Its report is in its output, or the file `report.json` beside its copies of files if it is too long for a log. Nothing
in either is trusted: this only sees that they are whole; who asked checks what the report says.

The files that a program left come in an archive, which the API's description calls a zip, its documentation a tar.gz;
its first bytes tell. Links, devices and unknown names in it are skipped, all sizes are limited, and each file must have
its digest.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import secrets
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType, ModuleType
from typing import Any, BinaryIO, TypeVar

from msgspec import Struct

from syncd.archive.extraction import BadArchive, Member, MemberKind, inner_path, members
from syncd.core.errors import SandboxNotFound, TryLater
from syncd.core.text import one_line
from syncd.core.waiter import TimeIsUp, Waiter
from syncd.model.entry import Entry, Kind
from syncd.remote.api import Api
from syncd.remote.bucket import check_url, download
from syncd.remote.failure import ApiStep, FailureAction, StepFailed, classify_bucket_status
from syncd.remote.http_client import HttpClient, NoResponse

_BLOCK = 1 << 18
# Beside the files themselves: headers, and what the sandbox adds of its own.
_OVERHEAD_BYTES = 64 << 20
# The list of a zip's members is read into memory as a whole.
_LARGEST_READ = 64 << 20
_MOST_MEMBERS = 250_000
_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_LISTED_MEMBER = b"PK\1\2"
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The exceptions of zipfile for a damaged archive.
_INVALID_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)


class NotKeptHere(TryLater):
    """Files from the sandbox cannot be kept on this machine."""


class ExtractedFiles(Struct, frozen=True):
    """Files of an archive that are on this machine now, by their names there, and names of those with another content.

    `not_kept` is the reason why others cannot be kept here.
    """

    paths: Mapping[str, str] = MappingProxyType({})
    wrong: Collection[str] = ()
    not_kept: str = ""

    def path(self, name: str) -> str:
        """Return the path of a file, empty if it is not there as expected. Raises `NotKeptHere`."""
        if self.not_kept:
            raise NotKeptHere(self.not_kept, "see to room and rights in the cache folder")
        return self.paths.get(name, "")


def extract_files(
    archive: str, expected: Mapping[str, Entry], prefix: str, most_bytes: int, check: Callable[[], None]
) -> ExtractedFiles:
    """Extract files of these names, from any folder of the archive, whose size and digest are as expected.

    Their paths here are the prefix and the last part of their names. One that cannot be kept is left out.

    Raises `BadArchive`, `OSError`, and what `check` raises; then none of them stays.
    """
    paths: dict[str, str] = {}
    wrong: set[str] = set()
    not_kept = ""
    with ExitStack() as failed:
        for inner, content in _files(archive, most_bytes + _OVERHEAD_BYTES):
            check()
            folder, _, last = inner.rpartition("/")
            name = f"{folder.rpartition('/')[2]}/{last}" if folder else last
            name = name if name in expected else last
            if name not in expected or name in paths:
                continue
            path = f"{prefix}{last}"
            try:
                if _extracted(expected[name], content, path, check):
                    paths[name] = path
                    failed.callback(os.unlink, path)
                else:
                    wrong.add(name)
            except OSError as failure:
                not_kept = unwritable(failure).message
        failed.pop_all()
    return ExtractedFiles(paths, wrong - paths.keys(), not_kept)


def keep_archive(packed: Iterable[bytes], path: str, most_bytes: int, check: Callable[[], None]) -> None:
    """Write an archive to a new file, if it is not much longer than `most_bytes` of files.

    Raises `OSError`, `BadArchive` if it is too long, and what `check` and `packed` raise; then no file stays.
    """
    most_bytes += _OVERHEAD_BYTES
    length = 0
    with new_file(path) as file:
        for block in packed:
            check()
            length += len(block)
            if length > most_bytes:
                raise BadArchive(f"it is larger than {most_bytes >> 20} MiB")
            file.write(block)


def _extracted(expected: Entry, content: Iterable[bytes], path: str, check: Callable[[], None]) -> bool:
    """Write a file, and return True if it is as expected; else nothing stays. Raises `OSError`."""
    sha256, left = hashlib.sha256(), expected.size_bytes
    with new_file(path) as file:
        for block in content:
            left -= len(block)
            if left < 0:
                break
            check()
            sha256.update(block)
            file.write(block)
    right = left == 0 and sha256.digest() == expected.digest
    if not right:
        os.unlink(path)
    return right


@contextmanager
def new_file(path: str) -> Iterator[BinaryIO]:
    """Open a new, private file, which is gone if an exception ends the context. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with ExitStack() as failed:
        failed.callback(os.unlink, path)
        with open(descriptor, "wb") as file:
            yield file
        failed.pop_all()


def _files(path: str, most_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the regular files of an archive, with their contents. Raises `BadArchive`, `OSError`.

    The whole archive is read: one that is cut short is of no use, even if it holds what is wanted.
    """
    left = most_bytes
    with open(path, "rb") as file:
        head = file.read(2)
        file.seek(0)
        if head not in (_GZIP, _ZIP):
            raise BadArchive("it is neither a tar.gz nor a zip")
        found = _in_zip(path) if head == _ZIP else members(iter(lambda: file.read(_BLOCK), b""))
        for member, content in found:
            left -= 512 + max(0, member.size_bytes)
            if left < 0:
                raise BadArchive(f"it holds more than {most_bytes >> 20} MiB")
            name = inner_path(member.name)
            if member.kind is MemberKind.FILE and name:
                yield name, content


class _LimitedFile(io.FileIO):
    """A zip of which no single read is large, or lists many members.

    zipfile reads as much as a header says, and the list in one read, of which it makes an object for each member. The
    count in the header need not be true.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(_LARGEST_READ + 1 if size is None or size < 0 else min(size, _LARGEST_READ + 1))
        if len(content) > _LARGEST_READ:
            raise BadArchive("its list of members is too long")
        if content.count(_LISTED_MEMBER) > _MOST_MEMBERS:
            raise BadArchive(f"it has more than {_MOST_MEMBERS:,} members")
        return content


def _in_zip(path: str) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield each member with its content. Raises `BadArchive`, `OSError`."""
    try:
        with _LimitedFile(path) as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                mode = info.external_attr >> 16
                is_file = not info.is_dir() and (not stat.S_IFMT(mode) or stat.S_ISREG(mode))
                kind = MemberKind.FILE if is_file else MemberKind.OTHER
                if is_file and (info.compress_type not in _ZIP_METHODS or info.flag_bits & 1):
                    raise BadArchive("it is compressed by another method, or encrypted")
                yield Member(info.filename, kind, mode, 0.0, info.file_size, ""), _zip_content(archive, info)
    except _INVALID_ZIP as failure:
        raise BadArchive(f"it is no valid zip ({type(failure).__name__})") from None


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(info) as content:
            yield from iter(lambda: content.read(_BLOCK), b"")
    except _INVALID_ZIP as failure:
        raise BadArchive(f"it is no valid zip ({type(failure).__name__})") from None


def unwritable(failure: OSError) -> NotKeptHere:
    """Return the error for a file that cannot be written."""
    return NotKeptHere(
        f"files from the sandbox cannot be kept on this machine ({failure.strerror or failure})",
        "see to room and rights in the cache folder",
    )


_READ_S = 60.0
# The program takes a moment; a busy sandbox may start it late.
JOB_TIMEOUT_S = 120.0
# Between polls: five within the first five seconds, since a free account has two requests a second for all.
_POLL_WAITS_S = (0.4, 0.8, 1.2, 2.0)
FIRST_POLL_S = 0.1
_LARGEST_LOG = 8 << 20  # a longer report is in a file, but where the disk there is full
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


class ReportCut(StepFailed):
    """The program printed its report, and the log lacks a part: some services keep only so much of one."""


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

    def report(
        self, output: str, read: Callable[[bytes], Report], most_bytes: int, extract: Extract | None = None
    ) -> Report:
        """Return what `read` makes of the report, as long as the output says and with its digest.

        It is in parts in the output, or in a file if it is too long for a log. Nothing of one that is longer than
        `most_bytes` is read. Raises `StepFailed` if it is not whole, or if `read` raises `ValueError`; `NotKeptHere`,
        and what `extract` raises.
        """
        end = self.report_end(output)
        if end is None:
            raise self._incomplete(output)
        size_bytes, digest = int(end[2]), bytes.fromhex(end[3])
        if size_bytes > most_bytes or (end[1] == "file" and extract is None):
            raise self.invalid("it is too long")
        if extract is None or end[1] == "log":
            content = "".join(re.findall(rf"(?m)^{self.name}<(.*)>\r?$", output)).encode("ascii", "replace")
            if len(content) != size_bytes or hashlib.sha256(content).digest() != digest:
                raise self._incomplete(output)
        else:
            path = extract({_FILE: Entry(Kind.FILE, size_bytes=size_bytes, digest=digest)}).path(_FILE)
            if not path:
                raise self.invalid(f"no {_FILE} is as the program wrote it")
            with open(path, "rb") as file:
                os.unlink(path)
                content = file.read()
        try:
            return read(content)
        except ValueError as failure:
            raise self.invalid(one_line(str(failure), 120)) from None

    def invalid(self, why: str) -> StepFailed:
        """Return the failure for a report that no honest program makes."""
        message = f"the report of {self.purpose.description} is invalid ({why})"
        return StepFailed(self.purpose.step, FailureAction.RETRY, message)

    def _incomplete(self, output: str) -> StepFailed:
        """Return the failure of a job whose output lacks its end, or a part."""
        if self.name in output:
            message = f"the log lacks a part of the report of {self.purpose.description}"
            return ReportCut(self.purpose.step, FailureAction.RETRY, message)
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
            if len(output) > _LARGEST_LOG:
                raise job.invalid("its log is too long")
            left_s = ends_s - self._clock.monotonic_s()
            if left_s <= 0:
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
    # Without a time of its own gzip takes the clock's, and fails where that is before 1970 or after 2106.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()
