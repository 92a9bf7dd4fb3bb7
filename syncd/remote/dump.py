"""Downloads the sandbox's workspace as the archive that the API makes of it (`/dump`), and reads it as it comes.

A download that breaks off starts anew with a fresh archive, since the sandbox may have changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from syncd.archive.tar_reader import BadArchive
from syncd.core.waiter import SupersededBy, Waiter
from syncd.remote.api import Api
from syncd.remote.bucket import check_url
from syncd.remote.failure import ApiStep, FailureAction, RetrySettings, StepFailed, retry_after_s
from syncd.remote.http_client import HttpClient, NoResponse, Response
from syncd.remote.retry import with_retries

# A download that brings nothing for so long has failed.
_READ_S = 60.0

Result = TypeVar("Result")


class Dump:
    """Downloads of one sandbox's workspace."""

    def __init__(self, api: Api, client: HttpClient, retry_settings: RetrySettings, waiter: Waiter) -> None:
        self._api = api
        self._client = client
        self._retry_settings = retry_settings
        self._waiter = waiter
        self._clock = waiter.clock

    def read(self, make: Callable[[Iterator[bytes]], Result], on_retry: Callable[[StepFailed, float], None]) -> Result:
        """Return the result of `make`, which is called with the archive's bytes at each attempt.

        It changes nothing, so a daemon gives it up for anything newer. Raises `StepFailed` when retries end,
        `Superseded`, `Stop`, and what else `make` raises.
        """
        return with_retries(
            lambda: self.read_once(make), self._retry_settings, self._clock, on_retry=on_retry, pause=self._pause
        )

    def read_once(
        self, make: Callable[[Iterator[bytes]], Result], superseded_by: SupersededBy = SupersededBy.ANY_CHANGE
    ) -> Result:
        """Do as `read`, in one attempt. Raises `StepFailed`, `Superseded`, `Stop`."""
        with self._waiter.superseded_by(superseded_by):
            return self._download(make)

    def _download(self, make: Callable[[Iterator[bytes]], Result]) -> Result:
        url = self._api.dump()
        check_url(ApiStep.DUMP, url)
        try:
            result = self._client.download(url, read_s=_READ_S, consume=make)
        except NoResponse as failure:
            raise StepFailed(ApiStep.DUMP, FailureAction.OFFLINE, f"the download was cut off ({failure})") from None
        except BadArchive as failure:
            raise StepFailed(
                ApiStep.DUMP, FailureAction.RETRY, f"the sandbox's archive cannot be read ({failure})"
            ) from None
        if isinstance(result, Response):
            asked_s = retry_after_s(result.header("Retry-After"), result.server_wall_s or self._clock.wall_s())
            message = f"the bucket answered the download with {result.status}"
            raise StepFailed(ApiStep.DUMP, FailureAction.RETRY, message, retry_after_s=asked_s)
        return result

    def _pause(self, wait_s: float, _: FailureAction) -> None:
        with self._waiter.superseded_by(SupersededBy.ANY_CHANGE):
            self._waiter.sleep(wait_s)
