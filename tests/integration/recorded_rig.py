"""A rig that records each failure and log line, and fails the test if one holds a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.remote.failure import FailureAction, StepFailed
from tests.integration.sync_rig import KEY, RecordingObserver, Rig

OPS = ("upload-url", "upload", "initialize")
RETRY, OFFLINE, FRESH, AGAIN, REFUSED = (
    FailureAction.RETRY,
    FailureAction.OFFLINE,
    FailureAction.RENEW_URL,
    FailureAction.UPLOAD_AGAIN,
    FailureAction.REFUSED,
)
JSON = "Content-Type: application/json"
_SECRET = re.compile(r"(?i)goog-|signature=|[0-9a-f]{64}")


@dataclass
class RecordedRig:
    """A rig with all that its syncs logged, and their failures."""

    rig: Rig
    log: pytest.LogCaptureFixture
    observers: list[RecordingObserver]
    failures: list[StepFailed]

    def sync(self, sync_mode: SyncMode = SyncMode.CHANGED) -> RecordingObserver:
        """Sync once, without a failure."""
        observer = RecordingObserver(self.rig.clock)
        self.observers.append(observer)
        assert self.rig.sync(sync_mode, observer)[0].word == "initialized"
        return observer

    def fail(self) -> StepFailed:
        """Sync once, with a failure."""
        failure, observer = self.rig.fail()
        self.observers.append(observer)
        self.failures.append(failure)
        return failure

    def converge(self) -> None:
        """Clear the faults: the next sync must bring everything over."""
        self.rig.emulator.faults.clear()
        self.rig.write("b.txt", "after it")
        observer = self.sync()
        assert observer.failures == []
        assert self.rig.arrived() == {file.name: file.read_text() for file in self.rig.workspace.iterdir()}

    def request_counts(self) -> str:
        """Return the number of requests for each of `OPS`."""
        return " ".join(str(self.rig.asked().count(op)) for op in OPS)

    def leaks(self) -> list[str]:
        """Return the messages that hold a secret."""
        failures = [*self.failures, *(failure for observer in self.observers for failure in observer.failures)]
        messages = [record.getMessage() + str(record.exc_info or "") for record in self.log.records]
        for failure in failures:
            error = failure.as_error()
            messages += [str(failure), repr(failure), str(error), repr(error), str(failure.__cause__)]
            assert "\n" not in str(error)
            assert str(error).isprintable()
            assert len(str(error)) < 400
        return [text for text in messages if KEY in text or _SECRET.search(text)]


def raw(status: str, *headers: str, body: str = "", ends: str = "\\r\\n") -> str:
    """Return the fault `raw …` for this response."""
    return "raw " + "\\r\\n".join([f"HTTP/1.1 {status}", *headers]) + ends + "\\r\\n" + body
