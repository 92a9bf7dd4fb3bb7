"""The paths that are blocked in the sandbox, by what the looks there find."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.target import Target
from syncd.sandbox.blocked_paths import BlockedPaths
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, Obstacle
from syncd.store.state_db import StateDb

FILE, FOLDER = Entry(Kind.FILE, 0o644, 1, 5, digest=b"d"), Entry(Kind.DIRECTORY, 0o755, 1)
MANIFEST = Manifest(
    {
        "a": FILE,
        "closed": FOLDER,
        "closed/new": FILE,
        "free": FILE,
        "ln": Entry(Kind.SYMLINK, 0o777, 1, target="lnk/x"),
        "lnk": FOLDER,
    }
)
LATE = StepFailed(ApiStep.INITIALIZE, FailureAction.RETRY, "late")


class Looks:
    """Answers each look with the next one of these."""

    def __init__(self, *answers: LookResult | StepFailed) -> None:
        self.answers = list(answers)
        self.requests: list[LookRequest] = []

    def __call__(self, request: LookRequest) -> LookResult:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, StepFailed):
            raise answer
        return answer


def reasons(paths: BlockedPaths) -> dict[str, str]:
    """Return the reason for each path that is blocked, as its warning has it."""
    return {
        each.key.partition(":")[2]: str(each).partition("in the sandbox ")[2].partition(":")[0]
        for each in paths.warnings
    }


@pytest.mark.parametrize("failed", [LATE, LookResult(unseen=1)])
def test_a_look_without_an_answer(tmp_path: Path, failed: LookResult | StepFailed) -> None:
    """What is suspected counts as blocked, what is blocked stays so, and nothing is found."""
    looks = Looks(LookResult(blocked={"a": Obstacle.DIRECTORY}), failed, failed)
    paths = BlockedPaths(looks, StateDb(str(tmp_path)), Target("https://api.example", "box", ""))
    assert paths.find(MANIFEST, ["a"])
    manifest = Manifest({path: entry for path, entry in MANIFEST.items() if path not in paths.withhold(MANIFEST)})
    assert paths.recheck(["free"], manifest)
    assert reasons(paths) == {
        "a": "a directory has its place",
        "free": "something of another kind may have its place",
    }
    assert not paths.find(manifest, None)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """It stays one until a program looks: the sandbox's archive does not tell."""
    found = LookResult(blocked={"closed/new": Obstacle.READ_ONLY, "a": Obstacle.DIRECTORY})
    looks = Looks(found, LookResult(kinds_only=True), LookResult())
    paths = BlockedPaths(looks, StateDb(str(tmp_path)), Target("https://api.example", "box", ""))
    assert paths.find(MANIFEST, None)
    rest = Manifest({path: entry for path, entry in MANIFEST.items() if path not in paths.withhold(MANIFEST)})
    paths.recheck((), rest)
    assert reasons(paths) == {"closed/new": "its directory is read-only"}
    assert paths.unblocked == ["a"]
    paths.withhold(MANIFEST)
    paths.recheck((), MANIFEST)
    assert paths.unblocked == ["closed/new"]


def test_a_link_that_leads_through_one_there(tmp_path: Path) -> None:
    """It is blocked with what it leads through."""
    looks = Looks(LookResult(blocked={"lnk": Obstacle.SYMLINK}))
    paths = BlockedPaths(looks, StateDb(str(tmp_path)), Target("https://api.example", "box", ""))
    assert paths.find(MANIFEST, None)
    assert reasons(paths) == {
        "ln": "a link has the place of a path that it leads through",
        "lnk": "a link has its place",
    }


def test_what_is_asked(tmp_path: Path) -> None:
    """The kinds of the paths and of the directories above them, and a repository's commits first of all."""
    looks = Looks(LookResult(), LookResult())
    paths = BlockedPaths(looks, StateDb(str(tmp_path)), Target("https://api.example", "box", ""))
    assert paths.find(MANIFEST, ["closed/new"]) is False
    paths.recheck(["a"], MANIFEST, [".git"])
    folder, file = Entry(Kind.DIRECTORY), Entry(Kind.FILE)
    assert [list(request.each()) for request in looks.requests] == [
        [("closed", LookItem((folder,), LookAction.PLACE)), ("closed/new", LookItem((file,), LookAction.PLACE))],
        [(".git", LookItem((), LookAction.COMMITS)), ("a", LookItem((file,), LookAction.PLACE))],
    ]
