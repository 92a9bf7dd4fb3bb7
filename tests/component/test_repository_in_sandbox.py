"""The repository in the sandbox follows what is sent, and leaves alone what an agent does there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.component.repository_rig import RepositoryRig, Sent, link, sent
from tests.repositories import git, poisoned, shell


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RepositoryRig:
    """A sandbox with three files, a link, and the repository of them, which `there` copies."""
    rig = RepositoryRig(tmp_path_factory.mktemp("made"))
    rig.send({"a.txt": "one\n", "d/b.txt": "two\n", "run.sh": sent("#!/bin/sh\n", 0o755), "ln": link("d/b.txt")})
    return rig


@pytest.fixture
def there(made: RepositoryRig, tmp_path: Path) -> RepositoryRig:
    """A sandbox with three files, a link, and the repository of them."""
    return made.copied(tmp_path)


# -- an idle sandbox


def test_only_what_git_refuses_is_left_out(there: RepositoryRig) -> None:
    """Names of git's own folder, and a link named `.gitmodules`, are in no commit and no status; the branch goes on."""
    before = {**there.files, "a.txt": sent("new\n")}
    refused: dict[str, Sent | str | None] = dict.fromkeys(
        [".GIT/x", "git~1", ".git /y", "s/.Git.", ".git::$INDEX", ".git\\x"], "q"
    )
    there.send({**refused, "a.txt": "new\n"})
    there.files = dict(before)
    there.check()
    assert there.is_following
    there.send({".gitmodules": link("a.txt"), **dict.fromkeys([".gité", ".gitx", "git~2", ".git-1", "x.git"], "q")})
    del there.files[".gitmodules"]
    there.check()


# -- requests and records


def test_two_lost_answers(there: RepositoryRig) -> None:
    """Then all is compared."""
    for content in ("2\n", "3\n"):
        there.runner.after = lambda: there.runner.outputs.__setitem__(-1, "")
        there.send({"a.txt": content})
        there.clock.go_on(3600)
    there.runner.after = lambda: None
    there.send({"a.txt": "one\n"})
    there.check()
    assert there.is_following


# -- an agent that works


DIRTY = "echo theirs > a.txt"
NEW_FILE = "echo theirs > new"
COMMITTED = f"{DIRTY}; git commit -qam agent"
OTHERS = f"{COMMITTED}; git checkout -q -b other main~1; echo others > a.txt; git commit -qam others"
# What an agent does, by its shell.
WORK = {
    "dirty": DIRTY,
    "a new file": NEW_FILE,
    "staged": f"{NEW_FILE}; git add new",
    "staged, and taken back": "echo staged > a.txt; git add a.txt; echo one > a.txt",
    "committed": COMMITTED,
    "committed, and taken back": f"{COMMITTED}; git revert --no-edit HEAD",
    "a branch of its own": "git checkout -q -b mine",
    "a commit on it": f"git checkout -q -b mine; {COMMITTED}",
    "detached": "git checkout -q --detach",
    "rebasing": f"{OTHERS}; git rebase -q main || test $? = 1",
    "merging": f"{OTHERS}; git merge -q main || test $? = 1",
    "merging without a conflict": (
        "git checkout -q -b side; git commit -q --allow-empty -m empty; git checkout -q main; "
        "git merge -q --no-ff --no-commit side"
    ),
    "bisecting": "git bisect start -q",
    "the index is locked": ": > .git/index.lock",
    "its branch is locked": ": > .git/refs/heads/main.lock",
    "no index": "rm .git/index",
    "deleted": "git rm -q --cached d/b.txt",
    "intended": f"{NEW_FILE}; git add -N new",
}


def everything(rig: RepositoryRig) -> dict[str, bytes | str]:
    """Return all files of the work tree and the repository, but what is syncd's own."""
    found: dict[str, bytes | str] = {}
    for path in rig.workspace.rglob("*"):
        name = str(path.relative_to(rig.workspace))
        own = name.startswith((".git/objects", ".git/syncd", ".git/refs/syncd")) or name == ".git/refs/tags/home"
        if not own and not path.is_dir():
            found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return found


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_what_an_agent_does_stays(there: RepositoryRig, work: str) -> None:
    """Nothing of it is moved or lost, and `home` goes on."""
    shell(there.workspace, work)
    there.arrive({"d/b.txt": "from here\n", "fresh": "from here\n"})
    before = everything(there)
    there.follow()
    assert everything(there) == before
    assert there.at("home") == there.at("refs/syncd/home")
    assert there.tree("home")["d/b.txt"][1] == b"from here\n"
    there.arrive({"d/b.txt": "newer\n"})
    before = everything(there)
    there.follow()
    assert everything(there) == before
    assert there.tree("home")["d/b.txt"][1] == b"newer\n"
    assert there.client.warnings == []
    (there.workspace / ".git/refs/heads/main.lock").unlink(missing_ok=True)  # fsck of git 2.53 takes it for a reference
    assert there.git("fsck", "--no-dangling", "--no-reflogs") == ""
    assert there.tree("home") == {**there.tree("home"), "fresh": ("100644", b"from here\n")}


def test_a_file_that_the_agent_changed_meanwhile(there: RepositoryRig) -> None:
    """Another content is not what was sent, whatever its size: the repository holds the version before."""
    before = there.tree("home")["d/b.txt"]
    there.arrive({"d/b.txt": "from here\n", "large": Sent(bytes(17 << 20))})
    (there.workspace / "d/b.txt").write_text("changed!!\n")
    (there.workspace / "large").write_bytes(b"x" * (17 << 20))
    there.follow()
    assert there.tree("home")["d/b.txt"] == before
    assert "large" not in there.tree("home")
    assert there.status == " M d/b.txt\0?? large\0"


@pytest.mark.parametrize("line", ["tag -f home HEAD", "tag -d home", "checkout -q home"])
def test_home_is_set_again(there: RepositoryRig, line: str) -> None:
    """Whatever becomes of the tag, it is what was sent last; what someone commits is not moved."""
    there.git("commit", "-q", "--allow-empty", "-m", "mine")
    there.git(*line.split())
    there.git("commit", "-q", "--allow-empty", "-m", "mine too")
    mine = there.at("HEAD")
    there.send({"d/b.txt": "3\n"})
    there.check()
    assert there.at("HEAD") == mine


# -- another repository, or none


FOLDER = "git init -q -b main"
FOREIGN = {
    "a folder": FOLDER,
    "a file": "echo gitdir: /elsewhere > .git",
    "a link": "ln -s /elsewhere .git",
    "a link to a repository": "git init -q ../other; mkdir ../other/.git/syncd; ln -s ../other/.git .git",
    # It lost its HEAD, and was made without templates: its commits are someone's.
    "no HEAD": (
        f"{FOLDER} --template=; git -c user.name=x -c user.email=x commit -q --allow-empty -m x; "
        "rm -rf .git/HEAD .git/COMMIT_EDITMSG .git/logs"
    ),
}


def listed(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return the mode, time and content of all that is in the folder, and in the one beside it."""
    found = {}
    for path in [*top.rglob("*"), *top.parent.glob("other/.git/**/*")]:
        status = path.lstat()
        content = os.readlink(path).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
        found[str(path)] = status.st_mode, status.st_mtime_ns, content
    return found


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_someone_elses_is_left_alone(tmp_path: Path, make: str) -> None:
    """It stays byte for byte, and is asked about once only, after a restart too."""
    rig = RepositoryRig(tmp_path)
    shell(rig.workspace, make)
    rig.arrive({"a": "1"})
    before = listed(rig.workspace)
    rig.follow()
    assert listed(rig.workspace) == before
    rig.send({"a": "2"})
    rig.restart()
    rig.send({"a": "3"})
    assert len(rig.runner.requests) == 1
    assert rig.client.warnings == []


def test_one_that_takes_the_place_of_ours_is_left_alone(there: RepositoryRig) -> None:
    """The agent begins a repository of its own."""
    shutil.rmtree(there.workspace / ".git")
    shell(there.workspace, FOLDER)
    there.arrive({"a.txt": "2\n"})
    before = listed(there.workspace)
    there.follow()
    assert listed(there.workspace) == before
    there.send({"a.txt": "3\n"})
    assert [json.loads(request)["commit"]["whole"] for request in there.runner.requests] == [True, False]


def test_a_broken_configuration_is_not_someone_elses(there: RepositoryRig) -> None:
    """A repository that git cannot read at the moment is a warning, and goes on once it can."""
    config = there.workspace / ".git/config"
    good = config.read_text()
    config.write_text("[core\n")
    there.send({"a.txt": "2\n"})
    assert len(there.client.warnings) == 1
    config.write_text(good)
    there.clock.go_on(3600)
    there.send({"a.txt": "3\n"})
    there.check()
    assert there.is_following


# -- programs


def test_nothing_that_is_configured_runs(there: RepositoryRig) -> None:
    """Neither by the agent's repository, nor by files that were sent, nor by the agent's own settings."""
    there.arrive({".gitattributes": "* filter=evil diff=evil merge=evil text\n", "cr.txt": "a\r\nb\r\n"})
    config = there.workspace / ".git/config"
    sparse = {"core.worktree": "/nonexistent", "core.splitIndex": "true", "core.untrackedCache": "true"}
    numbers = {"index.threads": "4", "index.version": "4", "index.sparse": "true", "gc.auto": "1"}
    mark = poisoned(there.workspace, there.folder, **sparse, **numbers)
    shutil.copy(config, there.folder / "more")
    git(there.folder, "config", "-f", str(config), "include.path", str(there.folder / "more"))
    there.follow()
    for content in ("2\r\n", "3\r\n", None):
        there.send({"cr.txt": content, "d/b.txt": f"{content}"})
    assert not mark.exists()
    assert there.client.warnings == []
    shutil.rmtree(there.workspace / ".git/hooks")
    (there.workspace / ".git/info/attributes").unlink()
    config.write_text("[core]\n\trepositoryformatversion = 0\n")
    assert there.at("main") == there.at("home")
    there.check()
    assert not mark.exists()
