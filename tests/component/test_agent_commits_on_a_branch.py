"""The agent's commits are made anew on a branch, and the last tree is what it is without them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from syncd.merge.branch import SENT_MESSAGE, NewBranch, SandboxCommit, foreign_author, make_branch
from syncd.merge.git import Git
from syncd.model.entry import SeenEntry
from tests.component.git_folder import file_of
from tests.component.test_agent_branch import (
    NOW,
    ODD,
    changed,
    made,
    plain_git,
    repository,
    sent_from,
    tree_of,
    write,
)

ADA = b"Ada <ada@x> 1795539000 +0130"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return repository(tmp_path / "work", {"a.txt": b"one\n", "dir/b.txt": b"two\n", "run.sh": b"#!/bin/sh\n"})


def agents(files: Mapping[str, bytes | None], message: bytes = b"m\n", author: bytes = ADA) -> SandboxCommit:
    return SandboxCommit(id="", author=foreign_author(author), message=message, changes=changed(files))


def branch_of(
    git: Git,
    workspace: Path,
    commits: Sequence[SandboxCommit],
    changes: Mapping[str, SeenEntry],
    sent: Mapping[str, SeenEntry] | None = None,
) -> NewBranch:
    sent = sent_from(workspace) if sent is None else sent
    return make_branch(
        git, str(workspace), "agent/work", sent, changes, is_excluded=lambda path: False, now=NOW, commits=commits
    )


def facts(top: Path, commit_id: str, form: str) -> str:
    return plain_git(top, "log", "-1", f"--format={form}", commit_id).decode("utf-8", "surrogateescape").rstrip("\n")


def test_what_is_committed_and_taken_back(git: Git, top: Path) -> None:
    """A path that is as it was sent in the end is so in the last tree, also a left out one of HEAD, and a folder."""
    write(top, {"a.txt": b"sent\n"})
    commits = [
        agents({"a.txt": None, "a.txt/deep": b"x", "dir/b.txt": None, "dir": b"a file"}),
        agents({"new/x": b"x", "run.sh": b"agent"}),
    ]
    branch = branch_of(git, top, commits, {})
    assert branch.subjects == ("As sent to the sandbox", "m", "m", "agent, not committed")
    assert tree_of(top, branch.commits[1]).keys() == {"a.txt/deep", "dir", "run.sh"}
    assert facts(top, branch.commits[3], "%T") == facts(top, branch.commits[0], "%T")


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
    branch = branch_of(git, top, [agents({"a.txt": b"agent\n"}, author=author)], changed({"a.txt": b"agent\n"}))
    assert facts(top, branch.commits[0], "%an <%ae> %ai") == shown
    plain_git(top, "fsck", "--strict", "--no-dangling")


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
    branch = branch_of(git, top, [agents({"a.txt": b"agent\n"}, message)], changed({"a.txt": b"agent\n"}))
    stored = plain_git(top, "cat-file", "commit", branch.commits[0]).partition(b"\n\n")[2]
    assert stored == message
    assert "\n" not in branch.subjects[0]
    plain_git(top, "fsck", "--strict", "--no-dangling")


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
        branch = branch_of(git, top / "in", commits, changes, given)
        made(git, top / "in", changes, "plain", given)
        assert facts(top, "agent/work", "%T") == facts(top, "plain", "%T")
        first = 1 if branch.subjects[0] == SENT_MESSAGE.strip() else 0
        for commit_id, content in zip(branch.commits[first:], line[1:], strict=False):
            is_there = {path: found for path, (_, found) in tree_of(top, commit_id).items()}
            assert is_there == {"outside": b"o", **{f"in/{path}": new for path, new in content.items()}}
