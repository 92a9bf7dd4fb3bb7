"""The agent's commits come home: `syncd apply --branch` makes them anew."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from syncd.remote.target import Target
from tests.agent import Agent
from tests.repositories import RepositoryThere, committed, note_home, person_git, poisoned, tree_of
from tests.system.rig import DEFAULTS, SANDBOX, Rig
from tests.system.trees import tree

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

ODD = os.fsdecode(b"caf\xe9 \n'-rf")
FILES = ("a", "d/b", "gone", "run")


@pytest.fixture
def home(rig: Rig) -> Path:
    """The person's repository, whose files were sent; the one in the sandbox is made by the test."""
    rig.configure({**DEFAULTS, "workspace.git": "none"})
    for path in FILES:
        rig.write(path, f"{path}\n")
    committed(rig.workspace)
    person_git(rig.workspace, "config", "user.name", "Dev")
    person_git(rig.workspace, "config", "user.email", "dev@example.org")
    rig.ok("push")
    return rig.workspace


@pytest.fixture
def repository(rig: Rig, home: Path) -> RepositoryThere:
    """The repository in the sandbox, on the agent's branch, as the state folder knows it."""
    made = RepositoryThere(rig.sandbox.workspace)
    record_home(rig, made.home)
    return made


def record_home(rig: Rig, commit: str) -> None:
    note_home(rig.state_folder, Target(rig.emulator.base_url, SANDBOX, "us"), commit)


def bare(home: Path, folder: Path) -> Path:
    """Return the objects and references of a repository without its configuration."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(home / ".git/objects", folder / "objects")
    shutil.copytree(home / ".git/refs", folder / "refs")
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    return folder


def subjects(folder: Path, name: str = "theirs") -> list[str]:
    """Return the new commits' subjects with their authors, the oldest first."""
    listed = person_git(folder, "log", "--first-parent", "--reverse", "--format=%an: %s", f"main..{name}")
    return listed.splitlines()


def test_commits_come_home(rig: Rig, home: Path, repository: RepositoryThere) -> None:
    """Several, also an empty one, a merge, a rename, modes, links, binary content and odd names; and what is left."""
    repository.commit("Füße\n\nbody", {"a": b"one\r\n\0", ODD: b"odd", "gone": None})
    (repository.workspace / "run").chmod(0o755)
    (repository.workspace / "ln").symlink_to("d/b")
    repository.commit("modes and links")
    repository.commit("nothing")
    repository.git("mv", "d/b", "d/moved")
    repository.commit("renamed")
    repository.git("checkout", "-q", "-b", "side", "home")
    repository.commit("on the side", {"side": b"s"})
    repository.git("checkout", "-q", "work")
    repository.git("merge", "-q", "--no-ff", "-m", "merged", "side")
    repository.write({"a": b"in the end\n", "new": b"n\n"})
    asked = rig.count("execute")
    done = rig.ok("apply", "--branch", "theirs")
    assert rig.count("execute") == asked + 2
    expected = ["Füße", "modes and links", "nothing", "renamed", "merged"]
    assert subjects(home) == [*(f"Ada: {subject}" for subject in expected), "Dev: agent, not committed"]
    assert [line.split(maxsplit=2)[2] for line in done.out.splitlines() if line.startswith("commit ")] == [
        *expected,
        "agent, not committed",
    ]
    first, second, empty, renamed, merged, last = (
        tree_of(home, commit) for commit in person_git(home, "rev-list", "--reverse", "main..theirs").split()
    )
    sent = {path: ("100644", f"{path}\n".encode()) for path in FILES}
    del sent["gone"]
    assert first == sent | {"a": ("100644", b"one\r\n\0"), ODD: ("100644", b"odd")}
    assert second == first | {"run": ("100755", b"run\n"), "ln": ("120000", b"d/b")}
    assert empty == second
    moved = {path: entry for path, entry in second.items() if path != "d/b"} | {"d/moved": second["d/b"]}
    assert renamed == moved
    assert merged == moved | {"side": ("100644", b"s")}
    assert last == merged | {"a": ("100644", b"in the end\n"), "new": ("100644", b"n\n")}
    assert person_git(home, "log", "-1", "--format=%ae|%ai|%cn|%B", "theirs~5").strip() == (
        "ada@example.org|2026-11-24 18:20:00 +0130|Dev|Füße\n\nbody"
    )
    person_git(home, "fsck", "--strict", "--no-dangling")
    assert [name for name in os.listdir(rig.home / ".cache/syncd") if "commits-" in name] == []


def test_what_stays_there(rig: Rig, home: Path, repository: RepositoryThere) -> None:
    """One execution brings the commits; how many there are on other branches and in a stash is told."""
    repository.commit("one\n\nbody", {"a": b"1", "new": b"2"})
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("elsewhere", {"side": b"s"})
    repository.git("checkout", "-q", "work")
    repository.commit("two\x1b[31m", {"a": b"2"}, GIT_AUTHOR_NAME="Bo\x07b", GIT_AUTHOR_DATE="@100 +0000")
    repository.write({"a": b"3"})
    repository.git("stash", "-q")
    done = rig.ok("apply", "--branch", "theirs")
    assert subjects(home) == ["Ada: one", "Bo\x07b: two\x1b[31m"]
    assert "two\\x1b[31m" in done.out
    assert "not on the branch: 3 commits of other branches or of a stash in the sandbox" in done.err


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("none was made", ""),
        ("the repository is damaged", "the agent's commits cannot be read"),
        ("no program runs there", "the agent's commits cannot be read"),
        ("it is gone", "there is no repository in the sandbox's workspace that syncd made"),
    ],
)
def test_no_commits(rig: Rig, home: Path, repository: RepositoryThere, tmp_path: Path, why: str, said: str) -> None:
    """The reason is said on stderr, and the changes come as one commit."""
    repository.write({"a": b"agent\n"})
    if why != "none was made":
        head = repository.commit("one")
    match why:
        case "the repository is damaged":
            (repository.workspace / ".git/objects" / head[:2] / head[2:]).unlink()
        case "no program runs there":
            rig.faults("execute: 501 always")
        case "it is gone":
            (repository.workspace / ".git").rename(tmp_path / "moved")
    done = rig.ok("apply", "--branch", "theirs")
    assert said in done.err
    assert subjects(home) == ["Dev: Changes from the sandbox"]


def test_what_may_never_come(rig: Rig, home: Path, repository: RepositoryThere) -> None:
    """Secrets, what the rules leave out, links that lead out, submodules and names that lead out are left and named."""
    rig.write(".syncdignore", "*.log\n")
    rig.ok("push")
    (repository.workspace / "by dot").symlink_to("dot/../x")  # by a link of a later commit
    repository.commit("only what stays", {".env": b"SECRET=1\n", "x.log": b"log\n"})
    repository.write({"fine": b"f\n"})
    for name, target in (("out", "../../etc"), ("absolute", "/etc/passwd"), ("in", "d"), ("dot", ".")):
        (repository.workspace / name).symlink_to(target)
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{repository.home},lib")
    repository.git("add", "fine", "out", "absolute", "in", "dot")
    repository.git("commit", "-q", "-m", "links")
    evil = repository.blob(b"evil")
    entries = []
    for line in repository.git("ls-tree", "-z", "HEAD").split("\0")[:-1]:
        facts, _, name = line.partition("\t")
        mode, _, entry = facts.split()
        entries.append((mode.lstrip("0").encode(), name.encode(), entry))
    tree = repository.raw_tree(*entries, (b"100644", b"../evil", evil), (b"100644", b".git", evil))
    repository.raw_commit(tree, b"evil")
    done = rig.ok("apply", "--branch", "theirs")
    assert subjects(home) == [
        "Dev: As sent to the sandbox",
        *("Ada: only what stays", "Ada: links", "Ada: evil"),
    ]
    said = dict(
        line.removeprefix("never").strip().split(": ", 1) for line in done.out.splitlines() if line.startswith("never")
    )
    assert said.keys() == {".env", "x.log", "out", "absolute", "by dot", "lib", "../evil", ".git"}
    assert "rules exclude it" in said[".env"]
    assert "submodule" in said["lib"]
    assert "leads out" in said["out"]
    assert ".git" in said[".git"]
    for commit in person_git(home, "rev-list", "main..theirs").split():
        assert tree_of(home, commit).keys() <= {*FILES, "fine", "in", "dot", ".syncdignore"}
    included = rig.ok("apply", "--branch", "included", "--include", "*.log")
    assert "x.log" not in included.out
    assert tree_of(home, "included")["x.log"] == ("100644", b"log\n")


def test_named_paths(rig: Rig, home: Path, repository: RepositoryThere) -> None:
    """Only they count, and commits without any of them are left out; objects may have another format here."""
    shutil.rmtree(home / ".git")
    person_git(home, "init", "-q", "-b", "main", "--object-format=sha256")
    person_git(home, "add", "-A")
    person_git(home, "commit", "-q", "-m", "by the person")
    repository.commit("a alone", {"a": b"1"})
    repository.commit("d alone", {"d/b": b"2"})
    repository.commit("both", {"a": b"3", "d/b": b"3", "d/new": b"3"})
    rig.ok("apply", "--branch", "theirs", str(home / "d"))
    assert subjects(home) == ["Ada: d alone", "Ada: both"]
    person_git(home, "fsck", "--strict", "--no-dangling")
    assert tree_of(home, "theirs")["a"] == ("100644", b"a\n")
    assert tree_of(home, "theirs")["d/new"] == ("100644", b"3")


def test_a_rebase_that_is_under_way(rig: Rig, home: Path, repository: RepositoryThere) -> None:
    """HEAD's line is taken all the same, and what is not on it is told."""
    repository.commit("one", {"a": b"1"})
    repository.commit("two", {"a": b"2"})
    repository.git("checkout", "-q", "home")
    newer = repository.commit("as sent again", {"d/b": b"later\n"})
    rig.write("d/b", "later\n")
    rig.ok("push")
    record_home(rig, newer)
    repository.git("checkout", "-q", "work")
    repository.git("-c", "sequence.editor=sed -i '1s/^pick/edit/'", "rebase", "-q", "-i", "home")
    done = rig.ok("apply", "--branch", "theirs")
    assert "not on the branch: 2 commits of other branches" in done.err
    assert subjects(home) == ["Dev: As sent to the sandbox", "Ada: one"]


def test_hostile_configuration(rig: Rig, home: Path, repository: RepositoryThere, tmp_path: Path) -> None:
    """Nothing that either repository has configured is run, there or here; work tree, index and HEAD stay."""
    repository.commit("one", {"a": b"agent\r\n", ".gitattributes": b"* filter=evil diff=evil merge=evil\n"})
    there = tmp_path / "there"
    there.mkdir()
    mark_there = poisoned(repository.workspace, there)
    (repository.workspace / ".gitattributes").write_bytes(b"* filter=evil diff=evil merge=evil\n")
    mark = poisoned(home, tmp_path)
    before = tree(home)
    rig.ok("apply", "--branch", "theirs")
    assert not mark.exists(), mark.read_text()
    assert not mark_there.exists(), mark_there.read_text()
    assert tree_of(bare(home, tmp_path / "bare"), "theirs")["a"] == ("100644", b"agent\r\n")
    after = tree(home)
    assert {path: after[path] for path in before} == before
    made = {path for path in after.keys() - before.keys() if not path.startswith(".git/objects/")}
    assert made == {".git/logs/refs/heads/theirs", ".git/refs/heads/theirs"}
    subprocess.run(["git", "update-ref", "refs/heads/x", "HEAD"], cwd=repository.workspace, check=True)
    assert mark_there.exists()  # it could have been run


def test_the_agent_commits_meanwhile(rig: Rig, home: Path, repository: RepositoryThere) -> None:
    """What is committed after the commits were read counts as not committed; nothing of it is taken back."""
    repository.commit("one", {"a": b"1"})
    agent = Agent(repository.workspace)
    rig.once("export-artifacts", "after", lambda: (agent.write("a", "2"), repository.commit("two")))
    rig.ok("apply", "--branch", "theirs")
    assert subjects(home) == ["Ada: one", "Dev: agent, not committed"]
    assert tree_of(home, "theirs")["a"] == ("100644", b"2")
