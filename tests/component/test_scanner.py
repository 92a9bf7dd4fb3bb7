"""Scans of real trees: any name, any depth, any kind, and nothing outside of the workspace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from syncd.core.errors import Stop, WorkspaceError
from syncd.scan.exclusions import LONGEST_PATH_BYTES
from syncd.scan.scanner import Scan, Scanner
from syncd.selection.selection import Decision, Scope, Selection
from syncd.watch.changes import ScanListener
from tests import descriptors
from tests.component.test_state_files import bound_socket
from tests.system.command import AS_ANYONE, as_anyone

DEPTH = 300


def scanned(workspace: Path, *ignore: str, check: Callable[[], None] = lambda: None) -> Scan:
    """Scan under the default rules and these patterns."""
    return Scanner(str(workspace), Selection(ignore=ignore), check=check).scan()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty workspace, beside a file that must not be uploaded."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("5ecret")
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


STAY = ("a", "./a//", "d/../a", "...", "b\udcff", "d", ".", "nowhere", "d/nowhere", "d/inner", "d/up", "loop", "out")
LEAD_OUT = ("../outside/secret", "../outside", "..", "/", "/etc/passwd", "d/.././/../work/a", "d/../../work/a")


def test_links(work: Path) -> None:
    """One that stays inside by its text is included, also to nowhere, in a circle, or to a link that is left out; one
    that leads outside, by its text or through another link, is left out with a warning. None is walked through.
    """
    (work / "a").write_text("a")
    (work / "d").mkdir()
    (work / "d/f").write_text("f")
    for path, target in {
        "out": "../outside",
        "loop": "d/loop",
        "d/inner": "f",
        "d/up": "..",
        "d/loop": "../loop",
    }.items():
        (work / path).symlink_to(target)
    stay = {f"in {number}": target for number, target in enumerate((*STAY, "out/secret"))}
    stay |= {"in itself": "in itself", "in below itself": "in below itself/x"}
    leads_out = {f"out {number}": target for number, target in enumerate(LEAD_OUT)}
    leads_out |= {"out up": "../work/a", "out whole": f"{work}/a", "out through": "d/up/../outside/secret"}
    for path, target in {**stay, **leads_out}.items():
        (work / path).symlink_to(target)
    scan = scanned(work)
    assert {path: entry.target for path, entry in scan.manifest.items() if path.startswith("in")} == stay
    assert not any(path.startswith("out") for path in scan.manifest)
    assert sorted(warning.key for warning in scan.warnings) == sorted(f"link:{path}" for path in ("out", *leads_out))
    assert scan.excluded == {"built-in": 1 + len(leads_out)}


def test_a_rule_file_that_is_a_link(work: Path) -> None:
    """Its rules do not count, as in git, and a warning says so until a file is in its place; a folder has none."""
    (work / "rules").write_text("private\n")
    (work / "private").write_text("1")
    (work / "d").mkdir()
    (work / ".syncdignore").symlink_to("rules")
    (work / "d/.gitignore").symlink_to("nowhere")
    (work / ".gitignore").mkdir()
    scanner = Scanner(str(work), Selection())
    scan = scanner.scan()
    assert "private" in scan.manifest
    assert sorted(warning.key for warning in scan.warnings) == ["rules:.syncdignore", "rules:d/.gitignore"]
    (work / ".syncdignore").unlink()
    (work / ".syncdignore").write_text("private\n")
    scan = scanner.scan([""])
    assert "private" not in scan.manifest
    assert [warning.key for warning in scan.warnings] == ["rules:d/.gitignore"]


def test_special_files(work: Path) -> None:
    """Sockets, FIFOs and devices are left out without opening them; the rule is reported."""
    os.mkfifo(work / "fifo")
    bound_socket(work / "socket")
    calls: list[tuple[str, bool]] = []

    def note(path: str, is_dir: bool, decision: Decision) -> None:
        calls.append((path, decision.included))

    scan = Scanner(str(work), Selection(), on_excluded=note).scan()
    assert scan.manifest == {}
    assert calls == [("fifo", False), ("socket", False)]
    assert scan.warnings == []


def test_deeper_than_any_path(work: Path) -> None:
    """A tree deeper than any path may be long is walked as far as paths are usable, with one warning."""
    name = "deep-" * 8
    here = os.open(work, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir(name, dir_fd=here)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    scan = scanned(work)
    longest = max(scan.manifest, key=len)
    assert LONGEST_PATH_BYTES - len(name) <= len(longest) <= LONGEST_PATH_BYTES
    (warning,) = scan.warnings
    assert "excluded" in warning.what
    assert len(str(warning)) < 400
    subprocess.run(["rm", "-rf", str(work)], check=True)


_OPENED = """
import sys
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
opened = []
sys.addaudithook(lambda event, about: opened.append(str(about[0])) if event in ("open", "os.scandir") else None)
scan = Scanner(sys.argv[1], Selection(ignore=("/data/",))).scan()
print(*scan.manifest)
print(*opened)
"""


def test_ignored_directories_are_never_opened(work: Path) -> None:
    """An ignored directory is neither opened nor listed; an ignored file gets no `stat`."""
    (work / "node_modules/x").mkdir(parents=True)
    (work / "data").mkdir()
    (work / "kept").mkdir()
    (work / ".env").write_text("5ecret")
    done = subprocess.run([sys.executable, "-c", _OPENED, str(work)], capture_output=True, text=True, check=True)
    manifest, opened = (line.split() for line in done.stdout.splitlines())
    assert manifest == ["kept"]
    assert {str(work), "kept"} <= set(opened)
    assert not {"node_modules", "data", ".env", "x"} & set(opened)


class NotingListener(ScanListener):
    """Notes what a scan tells, and acts each time that a directory is added, before it is listed."""

    def __init__(self, act: Callable[[int], object]) -> None:
        self.act = act
        self.calls: list[str] = []

    def begin(self) -> None:
        self.calls.append("begin")

    def add_rule_files(self, directories: Mapping[str, frozenset[str]]) -> None:
        assert directories == {}

    def add_directory(self, path: str, fd: int, scope: Scope) -> None:
        self.calls.append(path)
        self.act(fd)

    def finish(self) -> None:
        self.calls.append("finish")


def test_directories_are_added_before_they_are_listed(work: Path) -> None:
    """Each directory is added before it is listed, and the end of a scan is reported, whether it succeeded or not."""
    (work / "d").mkdir()
    listener = NotingListener(lambda fd: os.close(os.open("late", os.O_WRONLY | os.O_CREAT, dir_fd=fd)))
    assert list(Scanner(str(work), Selection(), listener).scan().manifest) == ["d", "d/late", "late"]
    assert listener.calls == ["begin", "", "d", "finish"]
    with pytest.raises(WorkspaceError):
        Scanner(str(work / "none"), Selection(), listener).scan()
    assert listener.calls[4:] == ["begin"]


def test_a_directory_that_takes_a_files_place_after_the_listing(work: Path) -> None:
    """A rule for directories is applied to what is found, not to what the listing told."""
    (work / ".syncdignore").write_text("z/\n")
    (work / "a.tmp").touch()
    (work / "z").write_text("a file may leave")
    (work.parent / "other").mkdir()
    (work.parent / "other/private").write_text("5ecret")

    def swap(path: str, _is_dir: bool, _decision: Decision) -> None:
        if path == "a.tmp":
            (work / "z").unlink()
            (work.parent / "other").rename(work / "z")

    scan = Scanner(str(work), Selection(ignore=("*.tmp",)), on_excluded=swap).scan()
    assert list(scan.manifest) == [".syncdignore"]


@pytest.mark.parametrize("changed", [None, frozenset({""})], ids=["all", "one"])
@pytest.mark.parametrize("rules", ["", "*.tmp\n"], ids=["taken away", "others"])
def test_a_file_made_before_new_rules_are_watched(work: Path, rules: str, changed: frozenset[str] | None) -> None:
    """Under the old rules the watch ignored its event: the directory is listed again once the new rules are watched."""
    (work / ".gitignore").write_text("*.log\n")
    listener = NotingListener(lambda _: None)
    scanner = Scanner(str(work), Selection(), listener)
    scanner.scan()
    (work / ".gitignore").write_text(rules)
    listener.act = lambda _: (work / "made.log").touch() if listener.calls[-3:] == ["begin", "", ""] else None
    found = scanner.scan(changed)
    assert list(found.manifest) == [".gitignore", "made.log"]


def test_every_descriptor_is_closed(work: Path) -> None:
    """After a scan, and after one that was stopped, no descriptor is left open."""
    (work / "a/b/c").mkdir(parents=True)
    before = descriptors.count()
    scanned(work)
    steps = iter(range(2))

    def check() -> None:
        if next(steps, None) is None:
            raise Stop

    with pytest.raises(Stop):
        scanned(work, check=check)
    assert descriptors.count() == before


_UNREADABLE = """
import sys
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
scan = Scanner(sys.argv[1], Selection()).scan()
print(*scan.manifest)
print(*sorted(scan.unread))
print(*sorted(problem.key for problem in scan.warnings))
"""


@as_anyone
def test_unreadable_files_and_directories(work: Path) -> None:
    """Unreadable files and directories are left out with a warning, for any user; the others are included."""
    for path in ("open/f", "closed/f", "blind/f", "shut"):
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).write_text("x")
    (work / "ruled").mkdir()
    (work / "ruled" / "excluded-by-a-rule").write_text("x")
    (work / "ruled" / ".gitignore").write_text("excluded-by-a-rule\n")
    (work / "ruled" / ".gitignore").chmod(0)
    (work / "shut").chmod(0)
    (work / "closed").chmod(0)
    (work / "blind").chmod(0o444)
    try:
        done = subprocess.run(
            [*AS_ANYONE, sys.executable, "-c", _UNREADABLE, str(work)], capture_output=True, text=True, check=True
        )
    finally:
        for path, mode in (("shut", 0o600), ("closed", 0o700), ("blind", 0o700)):
            (work / path).chmod(mode)
    manifest, unread, warnings = done.stdout.splitlines()
    assert manifest.split() == ["open", "open/f"]
    assert unread.split() == ["blind", "closed", "ruled", "shut"]  # without its rules, nothing in it may be uploaded
    named = [key for key in warnings.split() if key.startswith("unreadable:")]
    assert named == ["unreadable:blind", "unreadable:closed", "unreadable:ruled", "unreadable:shut"]
