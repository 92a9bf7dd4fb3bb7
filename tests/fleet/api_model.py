"""A model of the API and its bucket: how soon they answer, and with what, under load, limits and outages."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random

BUCKET_OPS = frozenset({"upload", "execution-upload", "download"})
# Seconds from a request to its answer where nothing else is to be done; three times as long is a rare answer.
_ANSWER_S = {
    "upload-url": 0.06,
    "execution-upload-url": 0.06,
    "execute": 0.12,
    "execution-logs": 0.05,
    "initialize": 0.5,
    "export-artifacts": 0.3,
    "dump": 1.0,
    "acquire": 8.0,
    "get": 0.05,
    "upload": 0.15,
    "execution-upload": 0.08,
    "download": 0.1,
}
_WHOLE_INITIALIZE_S = 4.0  # to unpack a whole archive takes longer
_HANDSHAKE_S = 0.1
# A request that would wait longer than this for its turn is refused.
_LONGEST_QUEUE_S = 8.0
_REFUSAL_S = 0.03
RATE_WINDOW_S = 1.0
UPLOAD_BYTES_PER_S = 2.5e6


@dataclass(frozen=True)
class Outage:
    """From `start_s` on, and before `end_s`, the API answers with `status`; None: not at all."""

    start_s: float
    end_s: float
    status: int | None = 503
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Load:
    """What an API can carry.

    Above `capacity_per_s` requests queue, and those that would wait too long are answered with `status`. `key_limit`
    are the requests that each laptop's key has in a second; None: any number.
    """

    capacity_per_s: float = inf
    status: int = 503
    retry_after_s: float | None = None
    key_limit: int | None = None


@dataclass(frozen=True)
class Reply:
    """An answer: its time, its status (None: there is none), its `Retry-After`, and a bucket's code."""

    at_s: float
    status: int | None
    retry_after_s: float | None = None
    code: str = ""


@dataclass
class Sent:
    """What a request of a laptop brings along."""

    laptop: int
    bytes_out: int = 0
    is_whole: bool = False
    is_connected: bool = True


@dataclass
class ApiModel:
    """One API for all. `requests` and `wasted` count the requests in each second from the first on.

    At each of `deployments` all connections end, with the requests on them.
    """

    random: Random
    load: Load = Load()
    outages: Sequence[Outage] = ()
    deployments: Sequence[float] = ()
    length_s: float = 3600.0
    requests: array[int] = field(init=False)
    wasted: array[int] = field(init=False)
    ops: Counter[str] = field(default_factory=Counter)
    served: Counter[int] = field(default_factory=Counter)  # by laptop
    refused: Counter[int] = field(default_factory=Counter)
    _free_s: float = 0.0
    _answered_s: dict[int, deque[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seconds = int(self.length_s) + 1
        self.requests = array("l", bytes(8 * seconds))
        self.wasted = array("l", bytes(8 * seconds))

    def request(self, op: str, now_s: float, sent: Sent) -> Reply:
        """Return the answer to a request that is sent now."""
        takes_s = _ANSWER_S[op] * (0.7 + 0.3 * self.random.expovariate(1.0))
        takes_s += 0.0 if sent.is_connected else _HANDSHAKE_S
        self.ops[op] += 1
        if op in BUCKET_OPS:
            return Reply(now_s + takes_s + sent.bytes_out / UPLOAD_BYTES_PER_S, 200)
        if op == "initialize" and sent.is_whole:
            takes_s += _WHOLE_INITIALIZE_S
        reply = self._answered(now_s, takes_s, sent)
        second = min(int(now_s), len(self.requests) - 1)
        self.requests[second] += 1
        if reply.status == 200:
            self.served[sent.laptop] += 1
        else:
            self.wasted[second] += 1
            self.refused[sent.laptop] += 1
        return reply

    def _answered(self, now_s: float, takes_s: float, sent: Sent) -> Reply:
        for outage in self.outages:
            if outage.start_s <= now_s < outage.end_s:
                return Reply(now_s + _REFUSAL_S, outage.status, outage.retry_after_s)
        load = self.load
        if load.key_limit is not None and self._is_over_limit(load.key_limit, sent.laptop, now_s):
            return Reply(now_s + _REFUSAL_S, 429, RATE_WINDOW_S)
        waits_s = max(self._free_s, now_s) - now_s
        if waits_s > _LONGEST_QUEUE_S:
            return Reply(now_s + _REFUSAL_S, load.status, load.retry_after_s)
        self._free_s = now_s + waits_s + 1 / load.capacity_per_s
        at_s = now_s + waits_s + takes_s
        for cut_s in (*self.deployments, *(outage.start_s for outage in self.outages)):
            if now_s < cut_s < at_s:
                return Reply(cut_s, None)
        return Reply(at_s, 200)

    def _is_over_limit(self, limit: int, key: int, now_s: float) -> bool:
        answered_s = self._answered_s.setdefault(key, deque())
        while answered_s and answered_s[0] <= now_s - RATE_WINDOW_S:
            answered_s.popleft()
        if len(answered_s) >= limit:
            return True
        answered_s.append(now_s)
        return False

    def was_cut(self, since_s: float, now_s: float) -> bool:
        """True if a connection that was used last then does not exist any more."""
        return any(since_s < cut_s <= now_s for cut_s in self.deployments)
