"""Removing files in the sandbox by executions that really run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core.clock import Clock, SystemClock
from syncd.core.interrupt import Interrupt
from syncd.core.waiter import Waiter
from syncd.remote.api import Api
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.remote_job import JobRunner
from syncd.remote.target import Target
from syncd.sandbox import remover_in_sandbox
from syncd.sandbox.pending_removals import PendingRemovals
from syncd.sandbox.remover import Removal, Remover
from syncd.scan.manifest import Entry, Kind, Manifest
from tests.integration.sync_rig import Rig, rigged

FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as it:
        yield it


def a_file(content: str) -> Entry:
    return Entry(Kind.FILE, 0o644, 1, len(content), digest=hashlib.sha256(content.encode()).digest())


def a_link(target: str) -> Entry:
    return Entry(Kind.SYMLINK, 0o777, 1, target=target)


def place(rig: Rig, path: str | bytes, content: str = "ours") -> Path:
    """Write a file in the sandbox."""
    file = Path(os.fsdecode(os.path.join(os.fsencode(rig.sandbox.workspace), os.fsencode(path))))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def remove(rig: Rig, paths_to_delete: Manifest, others: Manifest | None = None) -> Removal:
    """Remove by the machine's own clock, as the program really runs."""
    versions = {path: [entry, *([others[path]] if others else [])] for path, entry in paths_to_delete.items()}
    return _remover(rig, SystemClock()).remove(versions)


def _remover(rig: Rig, clock: Clock) -> Remover:
    target = Target(rig.emulator.base_url, rig.sandbox.id, "us")
    (state := rig.folder / "state").mkdir(exist_ok=True)
    waiter = Waiter(Interrupt(), clock)
    job_runner = JobRunner(Api(target, rig.key, rig.client, clock), rig.client, waiter)
    return Remover(job_runner, PendingRemovals(str(state), target), waiter)


def left(rig: Rig) -> list[str]:
    top = rig.sandbox.workspace
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def test_uploaded_paths_are_removed(rig: Rig) -> None:
    """Files, links, empty folders, names of any kind are removed; other paths stay."""
    odd = os.fsdecode(b"caf\xe9 \n-rf")
    for path in ("a", "d/e/f", "stay", odd):
        place(rig, path)
    (rig.sandbox.workspace / "ln").symlink_to("stay")
    paths_to_delete = {"d/e/f": a_file("ours"), "d/e": FOLDER, "d": FOLDER, "a": a_file("ours"), odd: a_file("ours")}
    removal = remove(rig, {**paths_to_delete, "ln": a_link("stay")})
    assert left(rig) == ["stay"]
    assert removal == Removal(removed=[*paths_to_delete, "ln"])


def test_changed_paths_stay(rig: Rig) -> None:
    """Another content of the same length, another kind, another target, and unknown content stay."""
    place(rig, "content", "OURS")
    place(rig, "longer", "ours and more")
    (rig.sandbox.workspace / "kind").mkdir()
    place(rig, "folder", "a file by now")
    (rig.sandbox.workspace / "ln").symlink_to("elsewhere")
    place(rig, "unknown")
    unknown = Entry(Kind.FILE, 0o644, 1, 4)
    paths_to_delete = {name: a_file("ours") for name in ("content", "longer", "kind")}
    removal = remove(rig, {**paths_to_delete, "folder": FOLDER, "ln": a_link("stay"), "unknown": unknown})
    assert removal == Removal(changed=["content", "longer", "kind", "folder", "ln", "unknown"])
    assert left(rig) == ["content", "folder", "kind", "ln", "longer", "unknown"]


@pytest.mark.parametrize("content", ["first", "2nd"])
def test_either_version_is_removed(rig: Rig, content: str) -> None:
    """A path sent twice is removed in either version."""
    place(rig, "a", content)
    assert remove(rig, {"a": a_file("first")}, {"a": a_file("2nd")}).removed == ["a"]
    place(rig, "a", "third")
    assert remove(rig, {"a": a_file("first")}, {"a": a_file("2nd")}).changed == ["a"]


def test_a_folder_with_other_files_stays(rig: Rig) -> None:
    """It is dropped from the record without a warning."""
    place(rig, "d/ours")
    place(rig, "d/theirs", "the agent's")
    removal = remove(rig, {"d/ours": a_file("ours"), "d": FOLDER})
    assert left(rig) == ["d", "d/theirs"]
    assert removal == Removal(removed=["d/ours"], kept=["d"])


def test_no_link_is_followed(rig: Rig) -> None:
    """A folder that became a link to outside is not entered."""
    outside = rig.folder / "outside"
    outside.mkdir()
    (outside / "f").write_text("ours")
    (rig.sandbox.workspace / "d").symlink_to(outside)
    (rig.sandbox.workspace / "ln").symlink_to(outside / "f")
    removal = remove(rig, {"d/f": a_file("ours"), "d": FOLDER, "ln": a_file("ours")})
    assert (outside / "f").read_text() == "ours"
    assert removal == Removal(removed=["d/f"], changed=["d", "ln"])


def test_a_missing_path_counts_as_removed(rig: Rig) -> None:
    """A removal can be repeated after any failure."""
    place(rig, "f", "a file where a folder was")
    paths_to_delete = {"f/g": a_file("ours"), "no": a_file("ours"), "no/where": a_file("ours")}
    assert remove(rig, paths_to_delete) == Removal(removed=list(paths_to_delete))


def test_many_paths(rig: Rig) -> None:
    """The output is longer than one response holds."""
    paths_to_delete = {f"d/{number:05}": a_file("ours") for number in range(3_000)}
    for path in paths_to_delete:
        place(rig, path)
    assert len(remove(rig, paths_to_delete).removed) == 3_000
    assert left(rig) == ["d"]


@pytest.mark.parametrize(
    ("fault", "action"),
    [
        ("execution-upload-url: 503", FailureAction.RETRY),
        ("execution-upload-url: 404", FailureAction.REFUSED),
        ("execution-upload: 403", FailureAction.RETRY),
        ("execution-upload: reset", FailureAction.OFFLINE),
        ("execution-upload: corrupt", FailureAction.RETRY),
        ("execute: 500", FailureAction.RETRY),
        ("execute: lost", FailureAction.OFFLINE),
        ("execution-logs: html", FailureAction.RETRY),
        ('execution-logs: json {"status": "completed", "logs": "hello"}', FailureAction.RETRY),
        ('execution-logs: json {"status": "failed", "logs": "[\\"x\\", 0, \\"removed\\"]"}', FailureAction.RETRY),
    ],
)
def test_failures_are_of_the_step_delete(rig: Rig, fault: str, action: FailureAction) -> None:
    """Each message says what to do, and the same removal can be requested again."""
    place(rig, "a")
    rig.emulator.faults.script(fault)
    with pytest.raises(StepFailed) as caught:
        remove(rig, {"a": a_file("ours")})
    assert (caught.value.step, caught.value.action) == (ApiStep.DELETE, action)
    rig.emulator.faults.clear()
    assert remove(rig, {"a": a_file("ours")}).removed == ["a"]
    assert left(rig) == []


def test_an_endless_execution_is_given_up(rig: Rig) -> None:
    """It is given up after two minutes of checks at growing intervals."""
    rig.emulator.faults.script('execution-logs: json {"status": "running"} always')
    with pytest.raises(StepFailed, match="longer than 120 s"):
        _remover(rig, rig.clock).remove({"a": [a_file("ours")]})
    assert rig.asked().count("execution-logs") < 80


def test_the_program_needs_nothing_but_python(tmp_path: Path) -> None:
    """It runs isolated, from its own folder, and marks its lines of output."""
    (tmp_path / "work").mkdir()
    asked = {"word": "w", "items": [{"path": "YQ==", "versions": [{"kind": "f", "size": 1, "sha256": ""}]}]}
    (tmp_path / "removals.json").write_text(json.dumps(asked))
    (tmp_path / "main.py").write_bytes(Path(remover_in_sandbox.__file__).read_bytes())
    ran = subprocess.run(
        [sys.executable, "-I", "-S", tmp_path / "main.py"],
        env={"AGENT_WORKSPACE": str(tmp_path / "work")},
        cwd="/",
        capture_output=True,
        check=True,
    )
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [["w", 0, "absent"], ["w", "done"]]
