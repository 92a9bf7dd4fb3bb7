"""Compares the selection in a workspace below a repository's top with git, run from the workspace."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace

from syncd.core.errors import WorkspaceError
from syncd.scan.exclusions import explain
from syncd.selection.ignore_files import Repository, branch_of, read_rules_outside, repository_around
from tests.component.git_folder import make_repository
from tests.component.test_scan_by_change import WatchedWorkspace
from tests.component.test_selection_and_git import (
    PLAIN,
    disagreements,
    needs_git,
    random_pattern,
    sent,
    verdicts_of_git,
    write,
    write_random_case,
)
from tests.repositories import git


def put(top: Path, paths: Iterable[str]) -> None:
    write(top, {os.fsencode(path): b"" for path in paths})


def commit(top: Path) -> None:
    git(top, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty", "-m", "first")


FILES = """a.log keep.log dist/x dist/d/y build/z sub/dist/x sub/build/z src/packages/app/dist/q top-only only-app/x
    only-above/x d/back.log d/other.tmp by-exclude not-by-exclude deep/er/anchored anchored"""
RULES = {
    b".gitignore": b"*.log\n/packages/app/dist/\npackages/*/build\n/top-only\n/packages/app/top-only\n*.tmp\n",
    b"packages/.gitignore": b"!keep.log\n/app/only-app/\n/only-above/\napp/**/anchored\n",
    b"packages/app/d/.gitignore": b"!back.log\n",
}
EXCLUDE = b"by-exclude\n!other.tmp\n/packages/app/src/packages\n"


@needs_git
@pytest.mark.parametrize("kind", ["repository", "worktree", "submodule"])
def test_below_the_top(tmp_path: Path, kind: str) -> None:
    """Every layer of rules, by name, anchored and negated, gives the results of git, also through a `.git` file."""
    main = tmp_path / "main"
    main.mkdir()
    git(main, "init", "-q")
    commit(main)
    top, common = main, main / ".git"
    if kind == "worktree":
        git(main, "worktree", "add", "-q", "../linked")
        top = tmp_path / "linked"
    elif kind == "submodule":
        outer = tmp_path / "outer"
        outer.mkdir()
        git(outer, "init", "-q")
        git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(main), "sub")
        (outer / ".gitignore").write_text("not-by-exclude\n*\n")  # of another repository
        top, common = outer / "sub", outer / ".git/modules/sub"
    write(top, RULES)
    (common / "info").mkdir(exist_ok=True)
    (common / "info/exclude").write_bytes(EXCLUDE)
    workspace = top / "packages/app"
    put(workspace, FILES.split())
    assert disagreements(workspace, common) == []
    assert "not-by-exclude" in sent(workspace)
    assert not {"a.log", "dist/x", "build/z", "only-app/x", "by-exclude", "deep/er/anchored"} & sent(workspace)


@needs_git
@pytest.mark.parametrize("seed", range(4))
def test_random_rules_above(tmp_path: Path, seed: int) -> None:
    """Random patterns at every level of random workspaces; the ignored workspace itself has its own test below."""
    dice = random.Random(seed)
    compared = 0
    for case in range(20):
        top = tmp_path / f"case{case}"
        write_random_case(dice, tmp_path, top.name)
        folders = sorted(path for path in top.rglob("*") if path.is_dir())
        workspace = dice.choice([*folders, top])
        git(top, "init", "-q")
        (top / ".git/info/exclude").write_bytes(os.fsencode(random_pattern(dice) + "\n" + random_pattern(dice)))
        below = workspace.relative_to(top)
        for folder in below.parts[:1]:
            write(top, {os.fsencode(f"{folder}/.gitignore"): os.fsencode(random_pattern(dice))})
        ignored = verdicts_of_git(top, [f"{way}/" for way in (below, *below.parents) if way.name])
        if any(pattern and not pattern.startswith("!") for _, _, pattern in ignored.values()):
            continue
        compared += workspace != top
        assert disagreements(workspace, top / ".git") == [], (below, (top / ".gitignore").read_bytes())
    assert compared


@pytest.mark.parametrize(
    ("rules", "excluded"),
    [
        ("packages/\n*.log\n", {"a.log", "keep.log"}),
        ("*\n!*.md\n", set()),
        ("packages/*\n*.log\n!keep.log\n", {"a.log"}),
        ("/packages/app\na.log\n", {"a.log"}),
        ("packages/**\n", set()),
        ("packages/app/*\n!packages/app/a.log\n", {"keep.log", "read.md", "d/x", "app/x"}),
        ("app/\n", set()),
        ("app/x\n", set()),
        ("x\n", {"d/x", "app/x"}),
    ],
)
def test_a_workspace_that_is_ignored_itself(tmp_path: Path, rules: str, excluded: set[str]) -> None:
    """No pattern that excludes the workspace itself, or a folder above it, applies in it. All others do."""
    make_repository(tmp_path)
    (tmp_path / ".gitignore").write_text(rules)
    workspace = tmp_path / "packages/app"
    paths = ["a.log", "keep.log", "read.md", "d/x", "app/x"]
    put(workspace, paths)
    assert sent(workspace) == {*paths} - excluded


def test_a_workspace_that_a_file_deep_above_ignores(tmp_path: Path) -> None:
    """A file of a folder between the repository's top and the workspace does not exclude it either."""
    make_repository(tmp_path)
    put(tmp_path / "a/b/c", ["x", "y.log"])
    (tmp_path / "a/b/.gitignore").write_text("*\n")
    assert sent(tmp_path / "a/b/c") == {"x", "y.log"}


def found(workspace: Path) -> Repository | None:
    return repository_around(str(workspace))


def test_which_repository(tmp_path: Path) -> None:
    """The innermost repository that git accepts counts: a folder or file called `.git` may be something else."""
    workspace = tmp_path / "a/b/c"
    workspace.mkdir(parents=True)
    make_repository(tmp_path)
    outer = Repository(str(tmp_path), f"{tmp_path}/.git")
    assert found(workspace) == outer
    (tmp_path / "a/b/.git").mkdir()
    assert found(workspace) == outer
    make_repository(tmp_path / "a")
    inner = Repository(f"{tmp_path}/a", f"{tmp_path}/a/.git")
    assert found(workspace) == inner
    (workspace / ".git").symlink_to(tmp_path / ".git")
    assert found(workspace) == Repository(str(workspace), f"{workspace}/.git")
    (workspace / ".git").unlink()
    for pointer in ("gitdir: /nowhere\n", "gitdir: .\n", "gitdir:", "nonsense", ""):
        (workspace / ".git").write_text(pointer)
        assert found(workspace) == Repository(str(workspace), ""), pointer
    (workspace / ".git").write_text("gitdir: ../../../.git\n")
    assert read_rules_outside(str(workspace), PLAIN, "").rules.files[0].source == f"{tmp_path}/.git/info/exclude"
    (workspace / ".git").unlink()
    for name in ("HEAD", "objects", "refs"):
        (tmp_path / "a" / ".git" / name).rename(workspace / name)
    assert found(workspace) is None  # a bare repository has no work tree


def test_an_exclude_file_that_is_a_link(tmp_path: Path) -> None:
    """Git follows a link to an exclude file, and not one in place of a .gitignore."""
    exclude = make_repository(tmp_path)
    (tmp_path / "rules").write_text("by-link\n")
    exclude.unlink()
    exclude.symlink_to("../../rules")
    put(tmp_path / "app", ["by-link", "other"])
    assert sent(tmp_path / "app") == {"other"}
    (tmp_path / "others").write_text("other\n")
    (tmp_path / ".gitignore").symlink_to("others")
    assert sent(tmp_path / "app") == {"other"}


@pytest.mark.parametrize("name", [".gitignore", ".git/info/exclude", ".git/HEAD"])
def test_rules_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """Without them nothing is uploaded, and the error names them."""
    make_repository(tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / name).touch()
    if os.geteuid():
        (tmp_path / name).chmod(0)
    elif name == ".git/HEAD":
        pytest.skip("root reads everything")
    else:
        os.truncate(tmp_path / name, 1 << 30)
    with pytest.raises(WorkspaceError, match=r"its rules in .* cannot be read: (Permission|File too)"):
        sent(tmp_path / "app")
    assert not explain(str(tmp_path / "app"), PLAIN, "f").included


class WatchedInRepository(WatchedWorkspace):
    """A watched workspace two levels below a repository's top."""

    def __init__(self, top: Path) -> None:
        self.top = top
        make_repository(top)
        (top / "packages/app").mkdir(parents=True)
        super().__init__(top / "packages/app")
        put(self.folder, ["f", "g"])
        self.receive()
        assert set(self.scan().manifest) == {"f", "g"}

    def reported(self) -> bool:
        """True if events gave a reason for a rescan, which the next scan is."""
        self.receive()
        return self.dirty._all


@pytest.fixture
def inside(tmp_path: Path) -> Iterable[WatchedInRepository]:
    it = WatchedInRepository(tmp_path)
    yield it
    it.watch.close()


def edit(path: Path, text: str = "f\n") -> None:
    path.write_text(text)


def save(path: Path, text: str = "f\n") -> None:
    """Replace the file as editors do."""
    draft = path.with_name("draft")
    draft.write_text(text)
    draft.replace(path)


@pytest.mark.parametrize("name", [".gitignore", "packages/.gitignore", ".git/info/exclude"])
def test_a_changed_rule_above_is_reported(inside: WatchedInRepository, name: str) -> None:
    """Creating, editing, replacing and removing a rule file above is reported as for a .gitignore inside."""
    file = inside.top / name
    file.unlink(missing_ok=True)
    inside.receive()
    inside.scan()
    for change, left in ((edit, {"g"}), (save, {"f"}), (Path.unlink, {"f", "g"})):
        change(file, "g\n") if change is save else change(file)
        assert inside.reported(), change
        assert set(inside.scan().manifest) == left
        inside.receive()
        inside.scan()


@pytest.mark.parametrize(
    "name", [".gitignore", "packages/.gitignore", ".git/info/exclude", "packages/.git/info/exclude"]
)
def test_rules_above_that_change_while_the_snapshot_is_taken(inside: WatchedInRepository, name: str) -> None:
    """The check of the rules fails, so nothing is uploaded by them."""
    inside.scanner.tree.set_entries({"f": replace(inside.scan().manifest["f"], digest=b"x")})
    assert inside.scanner.rules_unchanged([""])
    if name.startswith("packages/.git/"):
        make_repository(inside.top / "packages", "f\n")
    else:
        edit(inside.top / name)
    assert not inside.scanner.rules_unchanged([""])
    assert set(inside.scanner.scan([]).manifest) == {"g"}  # also if no event came


@needs_git
def test_the_branch(tmp_path: Path) -> None:
    """Of the workspace's own repository, read from the workspace alone; else "main"."""
    top, linked = tmp_path / "top", tmp_path / "linked"
    top.mkdir()
    git(top, "init", "-q", "-b", "feature/x")
    assert branch_of(str(top)) == "feature/x"  # unborn
    commit(top)
    (top / "sub/dir").mkdir(parents=True)
    git(top, "worktree", "add", "-q", "-b", "linked", str(linked))
    git_link, head_link = tmp_path / "git-link", tmp_path / "head-link"
    git_link.mkdir()
    (git_link / ".git").symlink_to(top / ".git")
    shutil.copytree(top / ".git", head_link / ".git")
    (head_link / ".git/HEAD").unlink()
    (head_link / ".git/HEAD").symlink_to(top / ".git/HEAD")
    for elsewhere in (top / "sub/dir", linked, git_link, head_link):
        assert repository_around(str(elsewhere)) is not None
        assert branch_of(str(elsewhere)) == "main"
    git(top, "checkout", "-q", "--detach")
    assert branch_of(str(top)) == "main"
