"""A branch holds what was sent and what the agent changed; nothing else of the repository changes, and nothing runs."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from syncd.core.errors import NeedsPerson, TryLater
from syncd.merge import commits as commits_module
from syncd.merge import git as git_module
from syncd.merge.commits import (
    CHANGES_MESSAGE,
    SENT_MESSAGE,
    NewBranch,
    SandboxCommit,
    foreign_author,
    make_branch,
)
from syncd.merge.git import Git
from syncd.model.entry import ABSENT, SeenEntry
from tests.fuzz.operations import tree
from tests.looks import file_of, link_to
from tests.repositories import person_git, poisoned, tree_of

NOW = datetime(2026, 11, 24, 13, 20, 11, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))
ODD = [os.fsdecode(n) for n in (b"new\nline", b"caf\xe9", b"-rf", b'quo"te', b"back\\slash", b"tab\there", b" sp ")]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A repository with one commit."""
    return repository(tmp_path / "work", {"a.txt": b"one\n", "dir/b.txt": b"two\n", "run.sh": b"#!/bin/sh\n"})


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def repository(folder: Path, files: Mapping[str, bytes], *options: str) -> Path:
    folder.mkdir(parents=True)
    person_git(folder, "init", "-q", "-b", "main", *options)
    if files:
        write(folder, files)
        commit(folder)
    return folder


def commit(folder: Path) -> None:
    person_git(folder, "add", "-A")
    person_git(folder, "commit", "-q", "-m", "by the person")


def sent_from(folder: Path) -> dict[str, SeenEntry]:
    """Everything in the folder, as a sync sends it."""
    found: dict[str, Any] = {path: entry for path, entry in tree(folder).items() if entry[0] != "folder"}
    return {
        path: link_to(what[0]) if kind == "link" else file_of(what[1], 0o755 if what[0] else 0o644)
        for path, (kind, *what) in found.items()
    }


def changed(files: Mapping[str, bytes | None]) -> dict[str, SeenEntry]:
    return {path: ABSENT if new is None else file_of(new) for path, new in files.items()}


def made(
    git: Git,
    workspace: Path,
    changes: Mapping[str, SeenEntry],
    name: str = "agent/work",
    sent: Mapping[str, SeenEntry] | None = None,
    is_excluded: Callable[[str], bool] = lambda path: False,
    commits: Sequence[SandboxCommit] = (),
) -> NewBranch:
    sent = sent_from(workspace) if sent is None else sent
    return make_branch(git, str(workspace), name, sent, changes, is_excluded=is_excluded, now=NOW, commits=commits)


def still(folder: Path) -> dict[str, object]:
    """Everything below a folder, but what a new branch adds: objects, its reference and its log."""
    found: dict[str, object] = {}
    for place, folders, names in os.walk(folder):
        inside = os.path.relpath(place, folder)
        if f"/{inside}/".find("/objects/") >= 0:
            folders[:] = []
            continue
        for name in names:
            path = os.path.join(place, name)
            status = os.lstat(path)
            link = stat.S_ISLNK(status.st_mode)
            content: object = os.readlink(path) if link else Path(path).read_bytes()
            found[os.path.normpath(f"{inside}/{name}")] = (status.st_mode, status.st_mtime_ns, content)
    return found


def added_to(before: dict[str, object], folder: Path) -> list[str]:
    """The files that are new; all others are as they were."""
    now = still(folder)
    assert {path: now.get(path) for path in before} == before
    return sorted(now.keys() - before.keys())


def commits_of(folder: Path, reference: str) -> list[str]:
    return person_git(folder, "rev-list", "--first-parent", reference).split()


def test_two_commits_on_top_of_head(git: Git, top: Path) -> None:
    """The first holds what was sent, where it differs from HEAD; the second the agent's changes; all else stays."""
    write(
        top, {"a.txt": b"edited here\n", "staged.txt": b"1\n", "untracked.bin": b"\0\1", **dict.fromkeys(ODD, b"odd")}
    )
    person_git(top, "add", "staged.txt")
    write(top, {"staged.txt": b"2\n"})
    (top / "link").symlink_to("a.txt")
    (top / "run.sh").chmod(0o755)
    (top / "dir/b.txt").unlink()
    before = still(top)
    changes = changed({"a.txt": b"the agent's\r\nmixed\n", "new/c.bin": b"\0" * 9, "run.sh": None, ODD[0]: b"agent"})
    changes |= {"link": link_to(ODD[1]), "tool": file_of(b"#!/bin/sh\n", 0o755)}
    branch = made(git, top, changes)
    assert added_to(before, top) == [".git/logs/refs/heads/agent/work", ".git/refs/heads/agent/work"]
    head = commits_of(top, "HEAD")
    assert commits_of(top, "agent/work") == [*reversed(branch.commits), *head]
    assert (len(branch.commits), branch.skipped) == (2, {})
    sent = {
        "a.txt": ("100644", b"edited here\n"),
        "staged.txt": ("100644", b"2\n"),
        "untracked.bin": ("100644", b"\0\1"),
        "link": ("120000", b"a.txt"),
        "run.sh": ("100755", b"#!/bin/sh\n"),
        **dict.fromkeys(ODD, ("100644", b"odd")),
    }
    assert tree_of(top, branch.commits[0]) == sent
    del sent["run.sh"]
    assert tree_of(top, branch.commits[1]) == sent | {
        "a.txt": ("100644", b"the agent's\r\nmixed\n"),
        "new/c.bin": ("100644", b"\0" * 9),
        ODD[0]: ("100644", b"agent"),
        "link": ("120000", os.fsencode(ODD[1])),
        "tool": ("100755", b"#!/bin/sh\n"),
    }
    messages = person_git(top, "log", "-2", "--format=%B%x00", "agent/work").split("\0\n")
    assert messages[:2] == [CHANGES_MESSAGE, SENT_MESSAGE]
    person_git(top, "fsck", "--strict", "--no-dangling")


def test_rules_keep_what_was_not_sent(git: Git, top: Path) -> None:
    """A path of HEAD that the rules leave out stays as HEAD has it; another one that was not sent is removed."""
    sent = sent_from(top)
    del sent["a.txt"], sent["run.sh"]
    branch = made(git, top, changed({"dir/b.txt": b"agent\n"}), sent=sent, is_excluded=lambda path: path == "run.sh")
    assert tree_of(top, branch.commits[0]).keys() == {"dir/b.txt", "run.sh"}
    assert tree_of(top, branch.commits[1]) == {
        "dir/b.txt": ("100644", b"agent\n"),
        "run.sh": ("100644", b"#!/bin/sh\n"),
    }


def test_hooks_that_are_settings_are_disabled(tmp_path: Path, top: Path, git: Git) -> None:
    """A newer git than this one also runs hooks that the configuration names: each is disabled by its name."""
    poisoned(top, tmp_path)
    program, seen = tmp_path / "recorder", tmp_path / "seen"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *branch*) env | grep ^GIT_CONFIG_ > {seen};; esac\nexec {git.program} "$@"\n'
    )
    program.chmod(0o755)
    made(Git(str(program), git.path, git.person), top, changed({"a.txt": b"agent\n"}))
    text = seen.read_text()
    assert "GIT_CONFIG_COUNT=2\n" in text
    for key in ("hook.evil.enabled", "hook.evil=x y.enabled"):
        assert f"={key}\n" in text
    assert text.count("=false\n") == 2


def test_the_person_is_asked_from_the_configuration(git: Git, top: Path, tmp_path: Path) -> None:
    """Without a name in the repository, the person's own configuration counts; without both, syncd signs."""
    (tmp_path / "mine").write_text("[user]\nname = Zoë\n")
    made(Git(git.program, git.path, {"GIT_CONFIG_GLOBAL": f"{tmp_path}/mine"}), top, changed({"x": b""}), name="one")
    made(git, top, changed({"x": b""}), name="two")
    shown = [person_git(top, "log", "-1", "--format=%an <%ae>", name).strip() for name in ("one", "two")]
    assert shown == ["Zoë <syncd@localhost>", "syncd <syncd@localhost>"]


@pytest.mark.parametrize(
    "name",
    ["../evil", "-f", "--force", "a..b", "HEAD", "@", "@{-1}", "", "a b", "a.lock", "/a", "a/", "a\nb", ".a", "a~1",
     "a:b"],
)  # fmt: skip
def test_names_that_git_refuses(git: Git, top: Path, name: str) -> None:
    """A name that git would not take is one line, and nothing is written."""
    before = still(top)
    with pytest.raises(NeedsPerson, match=r"^git does not allow a branch named") as failure:
        made(git, top, changed({"x": b"x"}), name=name)
    assert "\n" not in str(failure.value)
    assert added_to(before, top) == []


def test_a_name_that_stands_for_another_one(git: Git, top: Path) -> None:
    """No branch of another name is made than was asked for."""
    person_git(top, "checkout", "-q", "-b", "left")
    person_git(top, "checkout", "-q", "main")
    person_git(top, "branch", "-q", "-d", "left")
    with pytest.raises(NeedsPerson, match=r"^git does not allow a branch named '@{-1}'"):
        made(git, top, changed({"x": b"x"}), name="@{-1}")
    assert person_git(top, "for-each-ref", "--format=%(refname)").split() == ["refs/heads/main"]


def test_a_branch_that_exists_is_not_moved(git: Git, top: Path) -> None:
    """Loose, packed or below another one: nothing is overwritten."""
    person_git(top, "branch", "loose")
    person_git(top, "branch", "packed")
    person_git(top, "branch", "to-pack/deep")
    person_git(top, "pack-refs", "--all")
    person_git(top, "branch", "again")
    before = still(top)
    for name in ("main", "loose", "packed", "again", "main/below", "to-pack"):
        with pytest.raises(NeedsPerson) as failure:
            made(git, top, changed({"x": b"x"}), name=name)
        assert "\n" not in str(failure.value)
    assert added_to(before, top) == []


def before_the_import(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something right before the contents are read for the commits."""

    def make_commits(*arguments: Any) -> list[str]:
        monkeypatch.setattr(commits_module, "make_commits", git_module.make_commits)
        action()
        return git_module.make_commits(*arguments)

    monkeypatch.setattr(commits_module, "make_commits", make_commits)


def test_a_branch_made_meanwhile_is_not_moved(git: Git, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that appears while the contents are read stays where it is."""
    before_the_import(monkeypatch, lambda: person_git(top, "branch", "agent/work"))
    with pytest.raises(NeedsPerson, match="git cannot make the branch 'agent/work'"):
        made(git, top, changed({"new": b"new\n"}))
    assert commits_of(top, "agent/work") == commits_of(top, "HEAD")


def test_a_workspace_below_the_top(git: Git, top: Path) -> None:
    """The branch changes only what is below the workspace, in a folder of any name."""
    folder = os.fsdecode(b"sub [1]\n\xff")
    write(top, {f"{folder}/in/x": b"x\n", f"{folder}/gone": b"g\n", f"{folder}-other/y": b"y\n", "sub 1/z": b"z\n"})
    commit(top)
    before = tree_of(top, "HEAD")
    (top / folder / "gone").unlink()
    branch = made(git, top / folder, changed({"in/x": b"agent\n", "new": b"n\n"}))
    del before[f"{folder}/gone"]
    assert tree_of(top, branch.commits[0]) == before
    assert tree_of(top, branch.commits[1]) == before | {
        f"{folder}/in/x": ("100644", b"agent\n"),
        f"{folder}/new": ("100644", b"n\n"),
    }


def test_a_linked_work_tree(git: Git, top: Path, tmp_path: Path) -> None:
    """A linked work tree's own HEAD is the parent; its index and both HEADs stay."""
    person_git(top, "worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    write(tmp_path / "linked", {"linked.txt": b"l\n"})
    commit(tmp_path / "linked")
    before, linked = still(top), still(tmp_path / "linked")
    branch = made(git, tmp_path / "linked", changed({"linked.txt": b"agent\n"}))
    assert added_to(linked, tmp_path / "linked") == []
    assert added_to(before, top) == [".git/logs/refs/heads/agent/work", ".git/refs/heads/agent/work"]
    assert commits_of(top, "agent/work") == [*branch.commits, *commits_of(top, "other")]


def test_a_repository_without_a_commit(git: Git, tmp_path: Path) -> None:
    """The first commit has no parent, and HEAD still has no commit; the current branch itself is refused."""
    top = repository(tmp_path / "work", {})
    write(top, {"a": b"a\n"})
    with pytest.raises(NeedsPerson, match="'main' is the current one"):
        made(git, top, changed({"a": b"b\n"}), name="main")
    before = still(top)
    branch = made(git, top, changed({"a": b"b\n"}))
    assert added_to(before, top) == [".git/logs/refs/heads/agent/work", ".git/refs/heads/agent/work"]
    assert commits_of(top, "agent/work") == list(reversed(branch.commits))
    assert [tree_of(top, commit_id)["a"][1] for commit_id in branch.commits] == [b"a\n", b"b\n"]


@pytest.mark.parametrize("options", [["--object-format=sha256"], ["--ref-format=reftable"]])
def test_other_formats_of_repositories(git: Git, tmp_path: Path, options: list[str]) -> None:
    """A repository with SHA-256, and one that keeps its references in tables."""
    try:
        top = repository(tmp_path / "work", {"a": b"a\n"}, *options)
    except AssertionError:
        pytest.skip("this git does not know the format")
    write(top, {"b": b"b\n"})
    branch = made(git, top, changed({"a": b"agent\n"}))
    assert commits_of(top, "agent/work") == [*reversed(branch.commits), *commits_of(top, "HEAD")]
    assert tree_of(top, "agent/work") == {"a": ("100644", b"agent\n"), "b": ("100644", b"b\n")}
    with pytest.raises(NeedsPerson, match="already exists"):
        made(git, top, changed({"a": b"other\n"}))


def test_submodules_stay_as_head_has_them(git: Git, top: Path, tmp_path: Path) -> None:
    """A submodule keeps its commit; changes in it are told, not taken."""
    inner = repository(tmp_path / "inner", {"x": b"x\n"})
    person_git(top, "submodule", "add", "-q", str(inner), "lib/sub")
    commit(top)
    head = tree_of(top, "HEAD")
    write(top, {"lib/sub/x": b"edited\n", "lib/near": b"n\n"})
    changes = changed({"lib/sub/x": b"agent\n", "lib/sub": b"file", "lib/subway": b"s\n", "a/.GIT/config": b"evil"})
    branch = made(git, top, changes)
    submodule = dict.fromkeys(("lib/sub/x", "lib/sub"), "it is in a submodule")
    assert branch.skipped == {**submodule, "a/.GIT/config": "it is inside of a .git"}
    assert tree_of(top, branch.commits[0]) == head | {"lib/near": ("100644", b"n\n")}
    assert tree_of(top, branch.commits[1]).keys() == head.keys() | {"lib/near", "lib/subway"}


def test_a_sparse_checkout_removes_nothing(git: Git, top: Path) -> None:
    """What a sparse checkout does not hold was not sent, and stays as HEAD has it."""
    person_git(top, "sparse-checkout", "set", "--no-cone", "/*", "!/dir")
    assert not (top / "dir").exists()
    branch = made(git, top, changed({"a.txt": b"agent\n"}))
    assert len(branch.commits) == 1
    assert tree_of(top, "agent/work")["dir/b.txt"] == ("100644", b"two\n")


@pytest.mark.parametrize("second", [b"123456", b"12345678", b"7654321"])
def test_a_file_that_changes_meanwhile(git: Git, top: Path, second: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A content that is another one at its second reading makes no branch."""
    new, before = file_of(b"1234567"), still(top)
    before_the_import(monkeypatch, lambda: Path(new.copy).write_bytes(second))
    with pytest.raises(TryLater, match="'new' changed while it was read"):
        made(git, top, changed({"a.txt": b"agent\n"}), sent={**sent_from(top), "new": new})
    assert added_to(before, top) == []


def test_objects_that_are_missing(git: Git, top: Path) -> None:
    """Git's reason is one line, and there is no branch."""
    tree = person_git(top, "rev-parse", "HEAD:dir").strip()
    (top / ".git/objects" / tree[:2] / tree[2:]).unlink()
    before = still(top)
    with pytest.raises(NeedsPerson, match=tree) as failure:
        made(git, top, changed({"new": b"agent\n"}))
    assert "\n" not in str(failure.value)
    assert added_to(before, top) == []


def test_missing_objects_are_not_fetched(git: Git, top: Path, tmp_path: Path) -> None:
    """In a partial clone, no program is run to fetch what is missing; it is one line."""
    person_git(top, "config", "uploadpack.allowFilter", "true")
    person_git(tmp_path, "clone", "-q", "--filter=tree:0", "--no-checkout", f"file://{top}", "part")
    mark = tmp_path / "mark"
    person_git(tmp_path / "part", "config", "remote.origin.uploadpack", f"touch {mark}; false")
    person_git(tmp_path / "part", "config", "core.sshCommand", f"touch {mark}; false")
    for url in (f"file://{top}", str(top), "ssh://host/x", f"ext::touch {mark}"):
        person_git(tmp_path / "part", "config", "remote.origin.url", url)
        with pytest.raises(NeedsPerson):
            made(git, tmp_path / "part", changed({"new": b"agent\n"}), sent={})
    assert not mark.exists()


# -- the agent's own commits


ADA = b"Ada <ada@x> 1795539000 +0130"


def agents(files: Mapping[str, bytes | None], message: bytes = b"m\n", author: bytes = ADA) -> SandboxCommit:
    return SandboxCommit(id="", author=foreign_author(author), message=message, changes=changed(files))


def facts(top: Path, commit_id: str, form: str) -> str:
    return person_git(top, "log", "-1", f"--format={form}", commit_id).rstrip("\n")


UNKNOWN = "unknown <> 1970-01-01 00:00:00 +0000"


@pytest.mark.parametrize(
    ("author", "shown"),
    [
        (ADA, "Ada <ada@x> 2026-11-24 18:20:00 +0130"),
        (b"A\xff <\xff> 86400 -1400", "A\udcff <\udcff> 1970-01-01 10:00:00 -1400"),
        (b"", UNKNOWN),
        (ADA.replace(b"Ada ", b""), UNKNOWN),
        (ADA.replace(b"Ada", b"A <b>"), UNKNOWN),
        (ADA.replace(b"Ada", b"A\nparent x"), UNKNOWN),
        (ADA.replace(b"Ada", b"A" * 2000), UNKNOWN),
        (ADA.replace(b"@x", b"@x> 0 +0000\n<"), UNKNOWN),
        (ADA.replace(b"1795539000", b"-1"), UNKNOWN),
        (ADA.replace(b"1795539000", b"01"), UNKNOWN),
        (ADA.replace(b"1795539000", b"999999999999"), UNKNOWN),
        (ADA.replace(b"1795539000", b"9" * 30), UNKNOWN),
        (ADA.replace(b"+0130", b"+9999"), UNKNOWN),
        (ADA.replace(b"+0130", b"+1401"), UNKNOWN),
        (ADA + b"\n", UNKNOWN),
    ],
)
def test_foreign_authors(git: Git, top: Path, author: bytes, shown: str) -> None:
    """One that git would not write is unknown."""
    branch = made(git, top, changed({"a.txt": b"agent\n"}), commits=[agents({"a.txt": b"agent\n"}, author=author)])
    assert facts(top, branch.commits[0], "%an <%ae> %ai") == shown
    person_git(top, "fsck", "--strict", "--no-dangling")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe no UTF-8",
        b"data 5\nM 100644 inline x\nfrom 0000\n\n\ncommit refs/heads/x\n",
        b"\n\n \n",
        b"x" * 65536,
    ],
    ids=["empty", "no UTF-8", "commands", "blank", "long"],
)
def test_foreign_messages(git: Git, top: Path, message: bytes) -> None:
    """Each message is one, whatever it holds."""
    branch = made(git, top, changed({"a.txt": b"agent\n"}), commits=[agents({"a.txt": b"agent\n"}, message)])
    stored = person_git(top, "cat-file", "commit", branch.commits[0]).partition("\n\n")[2]
    assert os.fsencode(stored) == message
    assert "\n" not in branch.subjects[0]
    person_git(top, "fsck", "--strict", "--no-dangling")


def test_random_commits(git: Git, tmp_path: Path) -> None:
    """Whatever the agent committed, the last tree is what it is without commits; each commit has its own paths."""
    chance = random.Random(7)
    paths = ["a", "a/b", "a/b/c", "b", "b/x", "d/e", "d/f", *ODD]

    def tree() -> dict[str, bytes]:
        chosen: dict[str, bytes] = {}
        for path in chance.sample(paths, chance.randrange(len(paths))):
            if not any(other.startswith(f"{path}/") or path.startswith(f"{other}/") for other in chosen):
                chosen[path] = chance.choice([b"", b"1\n", b"2\r\n", b"\0"])
        return chosen

    def difference(old: dict[str, bytes], new: dict[str, bytes]) -> dict[str, bytes | None]:
        return {path: new.get(path) for path in sorted({*old, *new}) if old.get(path) != new.get(path)}

    for number in range(6):
        head, sent, now = tree(), tree(), tree()
        top = repository(tmp_path / str(number), {"outside": b"o", **{f"in/{path}": new for path, new in head.items()}})
        (top / "in").mkdir(exist_ok=True)
        line = [sent, *(tree() for _ in range(chance.randrange(1, 5)))]
        commits = [agents(difference(old, new)) for old, new in pairwise(line)]
        given = {path: file_of(content) for path, content in sent.items()}
        changes = changed(difference(sent, now))
        branch = made(git, top / "in", changes, sent=given, commits=commits)
        made(git, top / "in", changes, "plain", given)
        assert facts(top, "agent/work", "%T") == facts(top, "plain", "%T")
        first = 1 if branch.subjects[0] == SENT_MESSAGE.strip() else 0
        for commit_id, content in zip(branch.commits[first:], line[1:], strict=False):
            is_there = {path: found for path, (_, found) in tree_of(top, commit_id).items()}
            assert is_there == {"outside": b"o", **{f"in/{path}": new for path, new in content.items()}}
