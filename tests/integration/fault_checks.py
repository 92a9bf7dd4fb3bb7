"""What the tests of faults have in common: faults that are responses, what follows one, and what is told of it."""

from __future__ import annotations

import re

import pytest

from syncd.remote.failure import FailureAction
from tests.integration.sync_rig import KEY, Rig

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


def converge(rig: Rig) -> None:
    """Clear the faults: the next sync must bring everything over."""
    rig.emulator.faults.clear()
    rig.write("b.txt", "after it")
    outcome, observer = rig.sync()
    assert (outcome.word, observer.failures) == ("initialized", [])
    assert rig.arrived() == {file.name: file.read_text() for file in rig.workspace.iterdir()}


def request_counts(rig: Rig) -> str:
    """Return the number of requests for each of `OPS`."""
    return " ".join(str(rig.asked().count(op)) for op in OPS)


def leaks(rig: Rig, log: pytest.LogCaptureFixture) -> list[str]:
    """Return the failures and log lines that hold a secret."""
    messages = [record.getMessage() + str(record.exc_info or "") for record in log.records]
    for failure in rig.failures:
        error = failure.as_error()
        messages += [str(failure), repr(failure), str(error), repr(error), str(failure.__cause__)]
        assert "\n" not in str(error)
        assert str(error).isprintable()
        assert len(str(error)) < 400
    return [text for text in messages if KEY in text or _SECRET.search(text)]


def raw(status: str, *headers: str, body: str = "", ends: str = "\\r\\n") -> str:
    """Return the fault `raw …` for this response."""
    return "raw " + "\\r\\n".join([f"HTTP/1.1 {status}", *headers]) + ends + "\\r\\n" + body
