"""The reason that a flush waits, in words from the status document."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from syncd.cli.progress.waiting import PLAIN_EVERY_S, OwnSync, Waiting, WaitReason, wait_reason
from syncd.core.clock import stamp
from syncd.sync.status_document import LastError, Progress, SandboxName, State, Status
from tests.clock import NOON_S, ScriptedClock

PACKING = Progress(40_000, 100_000, 400, 1_000)
SENDING = Progress(2_203_000, 5_123_456, None, None, 1_250_000.0, 2.3)


def document(state: State, said: str = "", *, retry_s: int | None = None, progress: Progress | None = None) -> Status:
    return Status(
        running=True,
        pid=1,
        state=state,
        workspace="/w",
        sandbox=SandboxName("box", "https://x", "us"),
        last_error=LastError(stamp(NOON_S), "upload", said) if said else None,
        retry_at=None if retry_s is None else stamp(NOON_S + retry_s),
        progress=progress,
    )


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (document(State.DEBOUNCING), "waiting until the workspace is quiet"),
        (document(State.SNAPSHOTTING), "looking at the workspace"),
        (document(State.SNAPSHOTTING, progress=PACKING), "packaging, 40 % of 1,000 files"),
        (document(State.UPLOADING, progress=SENDING), "uploading, 2.1 MiB of 4.9 MiB, 1.2 MiB/s, 0:02 left"),
        (document(State.INITIALIZING), "waiting for the sandbox to take it in"),
        (
            document(State.RETRYING, "the bucket answered 503", retry_s=12),
            "trying again in 12 s: the bucket answered 503",
        ),
        (document(State.RETRYING, "gone", retry_s=-5), "trying again in 0 s: gone"),
        (document(State.HELD, "the key was refused: mend it"), "held: the key was refused: mend it"),
        (document(State.PAUSED), "syncing is paused"),
        (document(State.STOPPED), "the daemon has ended"),
    ],
)
def test_each_state_has_its_words(status: Status, text: str) -> None:
    """The reason has the state, its progress, and why it is retried."""
    assert wait_reason(status, NOON_S).text == text


def test_every_state_has_some() -> None:
    """Each state has a reason."""
    assert all(wait_reason(document(state), NOON_S).text for state in State)


@dataclass
class CurrentReason:
    now: WaitReason = field(default_factory=lambda: WaitReason("", ""))

    def __call__(self) -> WaitReason:
        return self.now


def test_without_a_terminal_only_new_reasons_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Another figure is not new, and lines are at least ten seconds apart."""
    clock, reason = ScriptedClock(), CurrentReason(WaitReason("uploading", "uploading, 1 of 9"))
    waiting = Waiting(reason, clock)
    waiting.show()
    clock.go_on(PLAIN_EVERY_S)
    reason.now = WaitReason("uploading", "uploading, 2 of 9")
    waiting.show()
    reason.now = WaitReason("retrying 503", "trying again in 4 s: 503")
    waiting.show()
    reason.now = WaitReason("initializing", "waiting for the sandbox")
    clock.go_on(PLAIN_EVERY_S / 2)
    waiting.show()
    clock.go_on(PLAIN_EVERY_S / 2)
    waiting.show()
    said = capsys.readouterr()
    assert said.err.splitlines() == ["uploading, 1 of 9", "trying again in 4 s: 503", "waiting for the sandbox"]
    assert said.out == ""


def test_a_sync_of_this_process() -> None:
    """Its progress is shown in the same words."""
    clock = ScriptedClock()
    watched = OwnSync(clock)
    watched.stage(State.SNAPSHOTTING)
    watched.packed(400, 1_000, 40_000, 100_000)
    assert watched.reason.text == "packaging, 40 % of 1,000 files"
    watched.stage(State.UPLOADING)
    watched.sent(0, 4 << 20)
    clock.go_on(2)
    watched.sent(2 << 20, 4 << 20)
    assert watched.reason.text == "uploading, 2.0 MiB of 4.0 MiB, 1.0 MiB/s, 0:02 left"
    watched.note("no network: look; trying again in 1.0 s")
    assert watched.reason.text == "no network: look; trying again in 1.0 s"
