"""The requests for a sync: which of them a sync serves, and what their clients are sent.

The request of a client that hung up before its sync began is dropped, a forced one too: no one waits for its answer,
and changes are sent anyway. A sync that began for it goes on.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import ExitCode, SyncdError, TryLater
from syncd.core.text import MOST_NAMED, for_sandbox
from syncd.daemon.control import Message
from syncd.sync.outcome import Outcome, is_given_up, obstructed_paths, still_changing, unsettled

PAUSED = TryLater("syncing is paused", "run `syncd resume`")


class Asker(Protocol):
    """The one that a request is from, and its answers go to."""

    @property
    def waits(self) -> bool:
        """True if it still waits for an answer."""

    def send(self, message: Message) -> None:
        """Send it an event."""

    def done(self, exit_code: ExitCode, message: str = "", **more: Any) -> None:
        """Send it the last answer, with the command's exit code."""


class SyncRequest(Struct, frozen=True):
    """A request for a sync. Without a client it came by a signal; a `lasting` one (flush) outlasts failures that pass.

    Success of one that `awaits_setup` is told when the set-up that the sync calls for has ended. `served` are the
    outcomes of the syncs that it waited for and that left some of its files `unsettled`.
    """

    client: Asker | None = None
    sync_mode: SyncMode = SyncMode.CHANGED
    lasting: bool = False
    awaits_setup: bool = False
    served: tuple[Outcome, ...] = ()
    unsettled: frozenset[str] | None = None

    @property
    def is_open(self) -> bool:
        """True if its client still waits, or if it has none."""
        return self.client is None or self.client.waits

    def fail(self, failure: SyncdError) -> None:
        if self.client is not None:
            self.client.done(failure.exit_code, str(failure))


class OneOfSeveral(Struct, frozen=True):
    """The client of a request for several sandboxes, for the one of this name: it is answered once, when all are done.

    `answers` are those of all, by name; None as long as there is none.
    """

    client: Asker
    name: str
    answers: dict[str, Message | None]

    @property
    def waits(self) -> bool:
        return self.answers[self.name] is None and self.client.waits

    def send(self, message: Message) -> None:
        self.client.send({**message, "sandbox": self.name})

    def done(self, exit_code: ExitCode, message: str = "", **more: Any) -> None:
        self.answers[self.name] = {"exit": exit_code, "message": message, **more}
        answers = {name: each for name, each in self.answers.items() if each is not None}
        if len(answers) < len(self.answers):
            return
        code = max(each["exit"] for each in answers.values())
        if code != ExitCode.DONE:
            told = (f"{name}: {for_sandbox(each['message'], name) or 'in sync'}" for name, each in answers.items())
            self.client.done(code, "; ".join(told))
            return
        results = [{"name": name, **each["result"]} for name, each in answers.items() if "result" in each]
        self.client.done(ExitCode.DONE, result={**results[0], "sandboxes": results} if results else None)


class RequestQueue:
    """The requests that are not answered yet.

    Fresh ones call for a sync at once. The others are served by the sync under way, or wait for the next one, whatever
    its reason, after one that failed or left some of their files unsettled.
    """

    def __init__(self) -> None:
        self._fresh: list[SyncRequest] = []
        self._begun: list[SyncRequest] = []

    @property
    def has_fresh(self) -> bool:
        """True if a sync is called for at once."""
        return any(request.is_open for request in self._fresh)

    @property
    def is_awaited(self) -> bool:
        """True if someone waits for the sync under way, or for the next one, whatever its reason."""
        return any(request.is_open for request in self._begun)

    def add(self, request: SyncRequest) -> None:
        """A sync whose scan begins from now on will serve it."""
        self._fresh.append(request)

    def begin(self) -> SyncMode:
        """The sync that begins now serves them all. Returns what they ask of it."""
        self._begun = [request for request in [*self._begun, *self._fresh] if request.is_open]
        self._fresh = []
        if any(request.sync_mode is SyncMode.FORCED for request in self._begun):
            return SyncMode.FORCED
        return SyncMode.ASKED if self._begun else SyncMode.CHANGED

    def put_back(self) -> None:
        """The sync under way gives way to a newer one, which serves its requests too."""
        self._fresh = [*self._begun, *self._fresh]
        self._begun = []

    def send_progress(self, **figures: object) -> None:
        """Send all clients the `state` alone where it is a new one, its figures, or what `failed`, and what follows."""
        for request in [*self._begun, *self._fresh]:
            if request.client is not None:
                # A lasting one does not end with the retries of this sync.
                hidden = "gives_up_in_s" if request.lasting else ""
                shown = {name: value for name, value in figures.items() if name != hidden}
                request.client.send({"event": "progress", **shown})

    def succeeded(self, outcome: Outcome) -> list[tuple[Asker, SyncRequest, Message]]:
        """Return the clients that the sync served, each with its request and the result.

        One whose files changed under it waits for one more sync, or fails.
        """
        done = []
        begun, self._begun = self._begun, []
        for request in begun:
            if request.client is None:
                continue
            left, served = unsettled(request.unsettled, outcome.follow_up, outcome.torn), (*request.served, outcome)
            if is_given_up(left, len(request.served)):
                request.fail(still_changing(left))
            elif left:
                self._begun.append(replace(request, sync_mode=SyncMode.CHANGED, served=served, unsettled=left))
            elif outcome.obstructed:
                request.fail(obstructed_paths(outcome.obstructed))
            else:
                sent = [one for one in served if one.sync is not None]
                saved = dict.fromkeys(path for one in served for path in one.saved)
                last = replace(sent[-1] if sent else outcome, saved=tuple(saved))
                done.append((request.client, request, described(last)))
        return done

    def failed(self, failure: SyncdError, *, for_good: bool) -> None:
        """Answer the requests that the sync served; lasting ones wait on, unless a person must act (`for_good`)."""
        begun, self._begun = self._begun, []
        for request in begun:
            if request.lasting and not for_good:
                self._begun.append(request)
            else:
                request.fail(failure)


def described(outcome: Outcome) -> Message:
    """The outcome as `push --json` prints it; `change` is null where it is unknown what the sandbox held before.

    `held` are the first paths, of `held_count`, that both sides changed and that stay as they are in the sandbox, and
    `saved` those, of `saved_count`, of which the version there was saved at home.
    """
    sync, change = msgspec.to_builtins(outcome.sync), msgspec.to_builtins(outcome.counts)
    found: Message = {"outcome": outcome.word, "files": outcome.files, "sync": sync, "change": change}
    for name, paths in (("held", outcome.held), ("saved", outcome.saved)):
        shown = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths[:MOST_NAMED]]
        found |= {name: shown, f"{name}_count": len(paths)}
    return found
