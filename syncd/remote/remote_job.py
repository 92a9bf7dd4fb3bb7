"""Runs a program of ours in the sandbox, by the documented way: its archive goes up, it is started, its log is read."""

from __future__ import annotations

import contextlib
import io
import secrets
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from syncd.core.errors import SandboxGone
from syncd.core.waiter import Waiter
from syncd.remote.api import Api
from syncd.remote.bucket import check_url
from syncd.remote.failure import ApiStep, FailureAction, StepFailed, classify_bucket_status
from syncd.remote.http_client import HttpClient, NoResponse

_READ_S = 60.0
# The program is done in a moment; a sandbox that is busy may begin with it late.
JOB_TIMEOUT_S = 120.0
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 2.0
_LARGEST_LOG = 64 << 20
_ENDED = ("completed", "failed")


class JobStage(Enum):
    """How far an execution is."""

    UNKNOWN = "the API knows of none, be it that it was never started or that its sandbox is gone"
    UNDER_WAY = "it runs, or waits for its turn"
    ENDED = "well or not"


@dataclass(frozen=True)
class Purpose:
    """The step that an execution is a part of, and what messages call it."""

    step: ApiStep
    what: str

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """What fails within it says what it was for: the API knows of an execution alone."""
        try:
            yield
        except StepFailed as failure:
            raise StepFailed(
                self.step,
                failure.action,
                f"{failure.message}, for {self.what}",
                failure.hint,
                retry_after_s=failure.retry_after_s,
                refusal=failure.refusal,
            ) from None


@dataclass(frozen=True)
class RemoteJob:
    """A program to run over there. `files` are its `main.py` and what lies beside it."""

    name: str
    purpose: Purpose
    files: Mapping[str, bytes]


def new_name() -> str:
    """A name that no other execution has: the API starts each by its name."""
    return f"syncd-{secrets.token_hex(8)}"


class JobRunner:
    """Runs errands in one sandbox, one after the other."""

    def __init__(self, api: Api, client: HttpClient, waiter: Waiter) -> None:
        self._api = api
        self._client = client
        self._waiter = waiter
        self._clock = waiter.clock

    def run(self, job: RemoteJob, check: Callable[[], None] = lambda: None) -> str:
        """All that it printed, once it has ended, however it ended; `check` is called all the time.

        Raises `StepFailed`, `Stop`; then it may be running, or start later.
        """
        self.upload(job)
        self.start(job)
        return self.printed(job, check)

    def upload(self, job: RemoteJob, region: str = "") -> None:
        """Put it where it is started from, in the place of what had its name before; in `region`, if one is named.

        Raises `StepFailed`, `Stop`.
        """
        with job.purpose.named():
            url = self._api.execution_upload_url(job.name, region)
            check_url(ApiStep.EXECUTION, url)
            self._put(url, _packed(job.files))

    def start(self, job: RemoteJob) -> None:
        """Ask for it to be run. Raises `StepFailed`, `Stop`; then it may be running, or start later."""
        with job.purpose.named():
            self._api.execute(job.name)

    def stage(self, name: str, purpose: Purpose) -> JobStage:
        """How far the execution of that name is. Raises `StepFailed`, `Stop`."""
        try:
            with purpose.named():
                status = self._api.execution_status(name)
        except StepFailed as failure:
            if failure.action is FailureAction.REFUSED and issubclass(failure.refusal, SandboxGone):
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

    def printed(
        self, job: RemoteJob, check: Callable[[], None] = lambda: None, timeout_s: float = JOB_TIMEOUT_S
    ) -> str:
        """All that it printed, once it has ended, however it ended. Raises `StepFailed`, also after `timeout_s`, and
        `Stop`.
        """
        printed, cursor = "", 0
        wait_s = _FIRST_LOOK_S
        ends_s = self._clock.monotonic_s() + timeout_s
        while True:
            with job.purpose.named():
                seen = self._api.execution_logs(job.name, cursor)
            printed += seen.logs
            if seen.status in _ENDED and seen.cursor <= cursor:
                return printed
            cursor = max(cursor, seen.cursor)
            if self._clock.monotonic_s() > ends_s or len(printed) > _LARGEST_LOG:
                message = f"{job.purpose.what} takes longer than {timeout_s:.0f} s"
                raise StepFailed(job.purpose.step, FailureAction.RETRY, message)
            check()
            if seen.status not in _ENDED:  # also where it prints all the time, or it would be asked all the time
                self._waiter.sleep(wait_s)
                wait_s = min(_LONGEST_LOOK_S, 2 * wait_s)


def _packed(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()
