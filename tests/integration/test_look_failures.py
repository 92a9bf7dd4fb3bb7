"""A look that fails: the step that it belongs to, and that the same look can be made again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.sandbox.look_request import LookAction, LookRequest
from tests.integration.sync_rig import Rig, rigged
from tests.integration.test_look import a_file, copies, item, look, looker, place


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as it:
        it.wait_for_programs()
        yield it


FAULTS = [
    ("execution-upload-url: 503", FailureAction.RETRY),
    ("execution-upload-url: 404", FailureAction.REFUSED),
    ("execution-upload: 403", FailureAction.RETRY),
    ("execution-upload: reset", FailureAction.OFFLINE),
    ("execution-upload: corrupt", FailureAction.RETRY),
    ("execute: 500", FailureAction.RETRY),
    ("execute: lost", FailureAction.OFFLINE),
    ("execute: failed", FailureAction.RETRY),
    ("execution-logs: html", FailureAction.RETRY),
    ('execution-logs: json {"status": "completed", "logs": "hello"}', FailureAction.RETRY),
    ('execution-logs: json {"status": "failed", "logs": "[\\"x\\", \\"removed\\", [[0, 0]]]"}', FailureAction.RETRY),
]


@pytest.mark.parametrize(
    ("action", "step"), [(LookAction.REMOVE, ApiStep.DELETE), (LookAction.FETCH, ApiStep.INITIALIZE)]
)
@pytest.mark.parametrize(("fault", "failure"), FAULTS)
def test_its_step(rig: Rig, fault: str, failure: FailureAction, action: LookAction, step: ApiStep) -> None:
    """A look that removes is of the step `delete`, another one of the step that follows. Either can be repeated."""
    place(rig, "a")
    asked = {"a": item(action, a_file("ours" if action is LookAction.REMOVE else "OURS"))}
    rig.emulator.faults.script(fault)
    with pytest.raises(StepFailed) as caught:
        look(rig, asked)
    assert (caught.value.step, caught.value.action) == (step, failure)
    rig.emulator.faults.clear()
    rig.sandbox.wait()
    result = look(rig, asked)
    assert (list(result.removed), list(result.differing)) == (
        (["a"], []) if action is LookAction.REMOVE else ([], ["a"])
    )


@pytest.mark.parametrize(
    "fault", ["export-artifacts: 503 always", "export-artifacts: reset", "download: cut", "download: 404"]
)
def test_copies_that_do_not_come(rig: Rig, fault: str) -> None:
    """Nothing of them stays here; the removals of that look were made."""
    place(rig, "changed")
    place(rig, "a")
    rig.emulator.faults.script(fault)
    asked = {"changed": item(LookAction.FETCH, a_file("OURS")), "a": item(LookAction.REMOVE, a_file("ours"))}
    with pytest.raises(StepFailed):
        look(rig, asked)
    assert list(copies(rig).iterdir()) == []
    assert rig.arrived() == {"changed": "ours"}


def test_an_endless_one_is_given_up(rig: Rig) -> None:
    """It is given up after two minutes of checks at growing intervals."""
    rig.emulator.faults.script('execution-logs: json {"status": "running"} always')
    with pytest.raises(StepFailed, match="longer than 120 s"):
        looker(rig).look(LookRequest({"a": item(LookAction.REMOVE, a_file("ours"))}), str(copies(rig)))
    assert rig.asked().count("execution-logs") < 80


def test_many_paths(rig: Rig) -> None:
    """The report is longer than one answer holds."""
    asked = {f"d/{number:05}": item(LookAction.REMOVE, a_file("ours")) for number in range(3_000)}
    for path in asked:
        place(rig, path, "ours" if int(path[2:]) % 2 else "theirs")
    result = look(rig, asked)
    assert len(result.removed) == len(result.differing) == 1_500
    assert len(rig.arrived()) == 1_500
