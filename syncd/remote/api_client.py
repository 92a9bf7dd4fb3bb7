"""Sends requests to the API, checks each answer, and gives each failure its meaning.

The key goes into the header of requests to `sandbox.base_url` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.api_key import ApiKey
from syncd.core.clock import Clock
from syncd.core.errors import KeyRefused, NeedsPerson, SandboxRefused
from syncd.core.text import one_line, redacted
from syncd.remote.failure import SIGN_IN, ApiStep, FailureAction, StepFailed, classify_api_status, retry_after_s
from syncd.remote.http_client import HttpClient, NoResponse, Response
from syncd.remote.pacing import RequestKind

_READ_S = 20.0
_LONGEST_DETAIL = 200

# What decoding an answer raises: it is no JSON of that shape, no UTF-8, or nested without end.
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Shape = TypeVar("Shape")


class ErrorMeaning(Struct, frozen=True):
    """The meaning of an error status for one endpoint, and what a person can do about it."""

    message: str
    hint: str
    refusal: type[NeedsPerson] = SandboxRefused


class ApiRequest(Struct, frozen=True):
    """One request to `path`, below the API's `/local-sandbox`.

    `read_s` replaces the usual limit of the wait for the answer; `name` is what messages call the request, its step if
    empty; `meanings` explain error statuses, and `other_refusal` every other refused one.
    """

    step: ApiStep
    method: str
    path: str
    read_s: float | None = None
    body: Mapping[str, Any] | None = None
    name: str = ""
    success: Collection[int] = (200, 201)
    meanings: Mapping[int, ErrorMeaning] = field(default_factory=dict)
    other_refusal: ErrorMeaning | None = None
    kind: RequestKind = RequestKind.SINGLE

    def __str__(self) -> str:
        return self.name or self.step


class ApiClient:
    """One API, reached with one key."""

    def __init__(self, base_url: str, key: ApiKey, client: HttpClient, clock: Clock) -> None:
        self._url = f"{base_url.rstrip('/')}/local-sandbox"
        self._key = key
        self._client = client
        self._clock = clock

    def send(self, request: ApiRequest) -> Response:
        """Return the answer to a request that succeeded, after the wait that the API's limit takes.

        Raises `StepFailed`, `Stop`, `Superseded`.
        """
        headers = {"Authorization": f"Bearer {self._key.reveal()}", "Accept": "application/json"}
        # A POST without a body still needs a length, or front ends answer 411; for empty content httpx sends one.
        content = None if request.method == "GET" else b""
        if request.body is not None:
            headers["Content-Type"] = "application/json"
            content = msgspec.json.encode(request.body)
        url, read_s = f"{self._url}{request.path}", request.read_s or _READ_S
        self._wait_for_turn(request)
        status = None
        try:
            answer = self._client.exchange(request.method, url, headers=headers, read_s=read_s, content=content)
            status = answer.status
        except NoResponse as failure:
            what = f"the API did not answer {request}" if failure.reached else "the API cannot be reached"
            message = f"{what} ({failure})"
            hint = "" if failure.reached else "check the network and sandbox.base_url"
            raise StepFailed(
                request.step, FailureAction.OFFLINE, message, hint, possibly_applied=failure.reached
            ) from None
        finally:
            now_s = self._clock.monotonic_s()
            self._client.api_pacing = self._client.api_pacing.answered(request.kind, status, now_s)
        if answer.status in request.success:
            return answer
        raise self._failure(request, answer)

    def ask(self, request: ApiRequest, shape: type[Shape]) -> Shape:
        """Return the decoded answer to a request that succeeded. Raises `StepFailed`."""
        return self.decode(request, self.send(request), shape)

    def decode(self, request: ApiRequest, answer: Response, shape: type[Shape]) -> Shape:
        """Return the answer's body as `shape`. Raises `StepFailed`."""
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except _UNDECODABLE:
            raise self.unusable(request, answer) from None

    def unusable(self, request: ApiRequest, answer: Response) -> StepFailed:
        """Return the failure of a request that succeeded with an answer of no use."""
        named = (answer.header(name) or "" for name in ("Content-Type", "Content-Encoding"))
        kind = one_line(", ".join(filter(None, named)) or "no type", 60)
        message = f"the API's answer to {request} is invalid ({kind}, {len(answer.body)} bytes)"
        return StepFailed(request.step, FailureAction.RETRY, message, SIGN_IN)

    def printable(self, text: str) -> str:
        """Return the API's own words on one line, without secrets."""
        return one_line(redacted(text, self._key.reveal()), _LONGEST_DETAIL)

    def _wait_for_turn(self, request: ApiRequest) -> None:
        wait_s = self._client.api_pacing.wait_s(request.kind, self._clock.monotonic_s())
        if wait_s > 0:
            self._client.waiter.sleep(wait_s)

    def _failure(self, request: ApiRequest, answer: Response) -> StepFailed:
        status = answer.status
        action = classify_api_status(request.step, status)
        meaning = self._meaning(request, action, answer)
        asked_s = None
        if action is not FailureAction.REFUSED:
            server_s = answer.server_wall_s or self._clock.wall_s()
            asked_s = retry_after_s(answer.header("Retry-After"), server_s)
        return StepFailed(
            request.step,
            action,
            meaning.message,
            meaning.hint,
            retry_after_s=asked_s,
            refusal=meaning.refusal,
            # A gateway's time-out leaves open what was done behind it; "unavailable" does not.
            possibly_applied=status < 300 or (status >= 500 and status != 503),
        )

    def _meaning(self, request: ApiRequest, action: FailureAction, answer: Response) -> ErrorMeaning:
        """Return what the error answer means, its status and detail included."""
        status = answer.status
        answered = f"{status}{self._detail(answer)}"
        meaning = None if action is FailureAction.UPLOAD_AGAIN else request.meanings.get(status)
        if meaning is None and action is FailureAction.REFUSED:
            meaning = self._refusal(request, status)
        if meaning is not None:
            return replace(meaning, message=f"{meaning.message} ({answered})")
        if 300 <= status < 400:
            message = f"the API answers with a redirect ({status}), which is not followed"
            return ErrorMeaning(message, "sign in to this network, or correct sandbox.base_url")
        return ErrorMeaning(f"the API answered {request} with {answered}", "")

    def _refusal(self, request: ApiRequest, status: int) -> ErrorMeaning:
        if status in (401, 403):
            return ErrorMeaning(f"the API refused the key from {self._key.source}", "put a valid key there", KeyRefused)
        if request.other_refusal is not None:
            return request.other_refusal
        hint = "check the account that the key belongs to" if status == 402 else "check sandbox.base_url"
        return ErrorMeaning(f"the API refused {request}", hint)

    def _detail(self, answer: Response) -> str:
        """The text of FastAPI's `{"detail": …}`, on one line."""
        try:
            detail: Any = msgspec.json.decode(answer.body)["detail"]
        except (*_UNDECODABLE, KeyError, TypeError):
            return ""
        if isinstance(detail, list):
            detail = "; ".join(
                f"{'.'.join(map(str, _as_list(item.get('loc'))))}: {item.get('msg', '')}"
                for item in detail
                if isinstance(item, dict)
            )
        return f", {self.printable(str(detail))}" if detail else ""


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
