"""The checks of `syncd check`, each by itself: on folders, on a workspace, and on the way to the sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.cli.check import Finding, Grade, checkup, exit_code, summary
from syncd.cli.check.checkup import (
    check_folders,
    check_key,
    check_look,
    check_route,
    check_workspace,
    clock_finding,
    failure_finding,
    heaviest,
)
from syncd.core.api_key import ApiKey
from syncd.core.choices import AgentChanges
from syncd.core.directories import directories_for
from syncd.core.settings import Config, check_config
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.target import Target
from tests.emulator import Emulator

PASS, NOTE, WARN, LATER, FAIL = Grade.PASS, Grade.NOTE, Grade.WARN, Grade.FAIL_FOR_NOW, Grade.FAIL


def _config(workspace: Path, max_mib: int = 2048) -> Config:
    keys = {"workspace": {"path": str(workspace)}, "sandbox": {"id": "box"}, "sync": {"max_snapshot_mib": max_mib}}
    return check_config(keys)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace, in a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def _of(workspace: Path, max_mib: int = 2048) -> dict[str, list[Finding]]:
    """The findings about the workspace by subject."""
    found: dict[str, list[Finding]] = {}
    for finding in check_workspace(_config(workspace, max_mib), watches=True):
        found.setdefault(finding.subject, []).append(finding)
    return found


@pytest.mark.parametrize(
    ("grades", "code", "line"),
    [
        ([], 0, "all checks passed (0)"),
        ([PASS, PASS, NOTE], 0, "all checks passed (2)"),
        ([PASS, WARN, WARN], 0, "2 warnings, 1 passed"),
        ([PASS, LATER], 75, "1 failed, 1 passed"),
        ([FAIL, LATER, WARN], 78, "2 failed, 1 warning, 0 passed"),
    ],
)
def test_exit_code_and_summary(grades: list[Grade], code: int, line: str) -> None:
    """The worst finding decides: a failure that needs a person outweighs one that may end by itself."""
    findings = [Finding("it", grade, "is so") for grade in grades]
    assert (exit_code(findings), summary(findings)) == (code, line)


@pytest.mark.parametrize(
    ("key", "grade"), [("abc", PASS), ("ab=c", PASS), ('"abc"', WARN), ("KLAVIS_API_KEY=abc", WARN)]
)
def test_characters_around_a_key(key: str, grade: Grade) -> None:
    """Quotes and assignments around a key are a warning that does not show the key."""
    (finding,) = check_key(ApiKey(key, "$KLAVIS_API_KEY"), "/nowhere")
    assert finding.grade is grade
    assert "abc" not in finding.what


def test_folders(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing folder passes if the nearest one above it can be written, and none is created; a file in a folder's
    place is a failure, and too little space for what the workspace holds a warning.
    """
    config = _config(workspace)
    assert [(it.subject, it.grade) for it in check_folders(config, 0)] == [("state", PASS), ("spool", PASS)]
    assert [path.name for path in workspace.parent.iterdir()] == ["work"]
    (workspace.parent / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(workspace.parent / "file"))
    state, spool = check_folders(config, 1 << 60)
    assert (state.grade, spool.grade) == (FAIL, WARN)
    assert "is no folder" in state.what
    assert "XDG_STATE_HOME" in state.remedy


def test_a_folder_that_others_can_read(workspace: Path) -> None:
    """It is a warning with the command that takes the rights away; nothing is changed."""
    config = _config(workspace)
    folder = Path(directories_for(config.workspace.path, os.environ).state)
    folder.mkdir(mode=0o755, parents=True)
    state, *_ = check_folders(config, 0)
    assert (state.grade, state.remedy) == (WARN, f"chmod go-rwx {folder}")
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("size_bytes", "grade", "words"),
    [
        (None, WARN, "nothing to send"),
        (800 << 10, PASS, "of 1 MiB"),
        (900 << 10, WARN, "near the"),
        (2 << 20, FAIL, ""),
    ],
)
def test_the_size_of_the_workspace(workspace: Path, size_bytes: int | None, grade: Grade, words: str) -> None:
    """An empty workspace, and one that is near its limit, is a warning; one over it a failure."""
    if size_bytes:
        (workspace / "file").write_bytes(bytes(size_bytes))
    (finding,) = _of(workspace, 1)["directory"]
    assert finding.grade is grade
    assert words in finding.what


@pytest.mark.parametrize(
    ("watches", "grade", "words"),
    [(4, PASS, "3 of 4 watches"), (3, WARN, "need some too"), (2, WARN, "too many"), (None, PASS, "3 watches")],
)
def test_watches(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, watches: int | None, grade: Grade, words: str
) -> None:
    """Use of over three quarters of the user's watches is a warning with the way to raise the limit."""
    monkeypatch.setattr("syncd.cli.check.checkup.watch_limit", lambda: (watches, "raise it"))
    (workspace / "a/b").mkdir(parents=True)
    (finding,) = _of(workspace)["inotify"]
    assert (finding.grade, finding.remedy) == (grade, "raise it" if grade is WARN else "")
    assert words in finding.what


def test_shared_file_systems(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check warns of those that hold what is sent."""
    for name in ("data", "node_modules"):
        (workspace / name).mkdir()
    mounts = workspace.parent / "mountinfo"
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(mounts))
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"23 22 0:5 / {workspace}/data rw - nfs4 server:/ rw\n"
        f"24 22 0:6 / {workspace}/node_modules rw - vboxsf modules rw\n"
    )
    (workspace / "file").touch()
    (warning,) = (finding for finding in _of(workspace)["directory"] if finding.grade is WARN)
    assert warning.what.startswith("'data' is polled, as it is on a shared file system (nfs4)")


def test_large_paths_and_secrets(workspace: Path) -> None:
    """Large files and secrets are one finding each, with what to do; a secret is not among the large files."""
    (workspace / "data").mkdir()
    (workspace / "data/big").write_bytes(b"x" * (2 << 20))
    (workspace / "id.pem").write_bytes(b"x" * (1 << 20))
    (workspace / "notes").write_text("sk_live_" + "Ab3dE5fG7hJ9kA2bC4dE6fG8")
    found = _of(workspace)
    assert found["largest"][0].details == ("100%   2,048 KiB  /data/big",)
    (secrets,) = found["secrets"]
    assert (secrets.grade, secrets.what) == (WARN, "2 paths excluded: 1 by content, 1 by name")
    assert secrets.details == ("notes holds a Stripe key in line 1", "id.pem: named like *.pem")


def _manifest(sizes: dict[str, int]) -> Manifest:
    found: Manifest = {}
    for path, size in sizes.items():
        components = path.split("/")
        for depth in range(1, len(components)):
            found.setdefault("/".join(components[:depth]), Entry(Kind.DIRECTORY, 0o755, 0))
        found[path] = Entry(Kind.FILE, 0o644, 0, size)
    return found


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, []),
        ({"a": 0}, []),
        ({"a": 3, "b": 7}, [("b", 7), ("a", 3)]),
        ({f"src/{n}": 10 for n in range(9)}, [("src/", 90)]),  # many small ones: the folder is named
        ({"data/raw/deep/big": 90, "data/x": 10}, [("data/raw/deep/big", 90), ("data/x", 10)]),  # one is most of it
        ({"a/b": 1, "c": 999}, [("c", 999)]),  # less than a hundredth is not named
        ({"a/x": 50, "a/y": 50, "b": 10}, [("a/x", 50), ("a/y", 50), ("b", 10)]),
        ({"a/x": 60, "a/y": 40, "a-b": 30, "ab": 9}, [("a/x", 60), ("a/y", 40), ("a-b", 30), ("ab", 9)]),
        ({f"f{n:02}": n for n in range(1, 41)}, [(f"f{n}", n) for n in (40, 39, 38, 37)]),  # no more than asked for
    ],
)
def test_heaviest(sizes: dict[str, int], expected: list[tuple[str, int]]) -> None:
    """Whole folders, replaced by their entries only where one dominates; nothing is counted twice."""
    assert heaviest(_manifest(sizes), 4) == expected


@pytest.mark.parametrize(
    ("base_url", "environ", "expected"),
    [
        ("https://api.example", {}, ["the system are trusted"]),
        ("https://api.example", {"https_proxy": "http://me:secret@proxy:3128"}, ["through proxy:3128", "are trusted"]),
        *(
            (
                "https://api.example",
                {"https_proxy": f"http://me:secret{end}@proxy:3128/"},
                ["proxy:3128", "are trusted"],
            )
            for end in ("/x", "?x", "#x", "@x")
        ),
        ("https://api.example", {"https_proxy": "http://me:secret/x"}, ["an invalid address", "are trusted"]),
        ("https://api.example", {"https_proxy": "http://proxy:3128", "no_proxy": "example"}, ["are trusted"]),
        ("http://127.0.0.1:8000", {"http_proxy": "http://proxy:3128", "SSL_CERT_FILE": "/nowhere"}, []),
        ("https://api.example", {"SSL_CERT_FILE": "/nowhere"}, ["/nowhere, from which no certificate"]),
        ("https://api.example", {"SSL_CERT_FILE": "/proc/self/maps"}, ["from which no certificate"]),
    ],
)
def test_the_route_to_the_api(
    base_url: str, environ: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy and certificates are named if the environment has any, but never a proxy's password."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = [finding.what for finding in check_route(base_url)]
    assert len(found) == len(expected)
    assert all(words in what and "secret" not in what for words, what in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("message", "answered", "subject", "grade", "remedy"),
    [
        ("no connection within 10 s", False, "api", LATER, "check the network and sandbox.base_url"),
        ("it answered 503", True, "api", LATER, "nothing to do on this machine"),
        # As tests/integration/test_unreachable_servers.py has them.
        ("the server's certificate is not trusted here (set", False, "certificate", FAIL, "SSL_CERT_FILE"),
        ("the server's certificate is for another host", False, "certificate", FAIL, "sandbox.base_url"),
        ("the server's certificate is not valid yet (is", False, "certificate", FAIL, "timedatectl"),
        ("the server's certificate has expired (or is", False, "api", LATER, "check the network"),
    ],
)
def test_failures_of_the_request(message: str, answered: bool, subject: str, grade: Grade, remedy: str) -> None:
    """Each kind has its remedy; a certificate that a person can do something about does not end by itself."""
    failure = StepFailed(ApiStep.SANDBOX, FailureAction.OFFLINE, message)
    found = failure_finding("https://api.example", failure, answered=answered)
    assert (found.subject, found.grade) == (subject, grade)
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("skew_s", "grade", "words"),
    [
        (None, NOTE, "not compared"),
        (-1.9, PASS, "agrees"),
        (59.9, PASS, "60 s ahead of"),
        (60.0, WARN, "60 s ahead of"),
        (-86_400.0, WARN, "86,400 s behind"),
    ],
)
def test_clock(skew_s: float | None, grade: Grade, words: str) -> None:
    """A clock that is off by a minute or more is a warning, never a failure."""
    finding = clock_finding(skew_s)
    assert finding.grade is grade
    assert words in finding.what


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    """A sandbox that somebody filled."""
    with Emulator(tmp_path / "cloud") as emulator:
        (emulator.create_sandbox("box").workspace / "theirs.txt").write_text("text\n")
        yield emulator


def _look(emulator: Emulator, agent_changes: AgentChanges = AgentChanges.SAVE) -> Finding:
    return check_look(Target(emulator.base_url, "box", "us"), agent_changes, ApiKey(emulator.api_key, "a test"))


@pytest.mark.parametrize("fault", ["execute: 501 always", "execute: failed always"])
def test_no_program_runs(emulator: Emulator, fault: str) -> None:
    """The archive is read instead."""
    emulator.faults.script(fault)
    found = _look(emulator)
    assert found.grade is NOTE
    assert "takes the whole archive" in found.what
    assert emulator.request_log.ops()[-2:] == ["dump", "download"]


@pytest.mark.parametrize("fault", ["dump: 501 always", "download: cut always"])
def test_nobody_can_look(emulator: Emulator, fault: str) -> None:
    """It says what follows, by the setting."""
    emulator.faults.script("execute: 501 always", fault)
    save, hold = (_look(emulator, changes) for changes in (AgentChanges.SAVE, AgentChanges.HOLD))
    assert (save.grade, hold.grade) == (WARN, LATER)
    assert "overwritten unsaved" in save.what
    assert "nothing is sent" in hold.what


def test_a_server_that_hangs(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two is given up in time."""
    monkeypatch.setattr(checkup, "LOOK_S", 0.3)
    emulator.faults.script("execution-upload-url: hang 60 always", "dump: hang 60 always")
    found = _look(emulator)
    assert found.grade is WARN
    assert found.what.count("takes longer than") == 2
