"""The program that packs the agent's commits in the sandbox. It runs there, with any Python from 3.6 on.

It finds the commits on the first-parent line of HEAD that the commit `home` does not reach, and copies them beside
itself as one pack of git's: each commit, the folders by which it differs from its first parent, on both sides, and the
contents of what it changed. Whoever has the pack can compare each commit with its parent, and needs no other object.

Nothing that the agent has configured is run or changes what is read (see `git_in_sandbox`, which is sent with it). Only
HEAD and the references are asked from the agent's repository, by commands that read nothing else. A `.git` that is a
file or a link is not read.

It deletes its request and itself first, so that the export of its folder holds report and pack alone.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
from typing import Any

from syncd.sandbox.repository.git_in_sandbox import BLOCK, PrivateGit, Refused, failed

_MOST_S = 90  # for everything; an object that is a FIFO never answers
_SPARE_BYTES = 64 << 20  # stay free on the disk
_LONGEST_LINE = 4000  # some logs cut longer lines
_MOST_LISTED = 100000  # commits that are counted
_MOST_BRANCHES = 100
_MOST_OF_LOG = 1 << 20
_ID = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")
_UNDER_WAY = (
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("BISECT_LOG", "bisect"),
)


class _NotThere(Exception):
    """There are no commits to read; the message says why."""


class _TooLate(Refused):
    """The time is over."""


class _Commits:
    """The agent's commits, and what is reported of them."""

    def __init__(self, request: "dict[str, Any]", workspace: "str", own: "str") -> None:
        self._request = request
        self._repository = os.path.join(workspace, ".git")
        self._workspace = workspace
        self._own = own
        self._home = request["home"]
        self.report = {
            "commits": [], "unlisted": 0, "pack": [0, ""], "branch": "", "under_way": [], "stashes": 0, "branches": [],
            "more_branches": 0, "absence": "", "failure": "",
        }  # type: dict[str, Any]  # fmt: skip

    def pack(self) -> None:
        """Pack all that is asked for. Raises `_NotThere`, `Refused`, `OSError`."""
        try:
            status = os.lstat(self._repository)
        except OSError:
            raise _NotThere("there is no .git in the sandbox's workspace") from None
        if not stat.S_ISDIR(status.st_mode):
            raise _NotThere("the .git in the sandbox's workspace is a file or a link")
        if _ID.fullmatch(self._home) is None:
            raise _NotThere("no repository of syncd's was made in the sandbox")
        git = PrivateGit(os.path.join(self._own, "git"), self._workspace, _MOST_S, len(self._home))
        if git.result("cat-file", "-t", self._home)[0].strip() != b"commit":
            raise _NotThere("the repository in the sandbox's workspace is not the one that syncd made")
        head = self._find_head(git)
        words = ("rev-list", "--first-parent", "--parents", f"--max-count={_MOST_LISTED}")
        listed = git.run(*words, head, "^" + self._home, "--").decode("ascii").splitlines()
        # Each commit with its first parent, the oldest first.
        pairs = [" ".join(line.split(" ")[:2]) for line in reversed(listed)]
        objects = self._find_objects(git, pairs[: self._request["most_commits"]])
        self.report["unlisted"] = len(pairs) - len(self.report["commits"])
        if self.report["commits"]:
            self._write_pack(git, self._within_limit(git, objects))
        try:
            self._find_others(git, head)
        except _TooLate:
            self.report["more_branches"] += 1  # the commits themselves are packed

    def _find_head(self, git: "PrivateGit") -> "str":
        """Return the id of HEAD's commit; note its branch, and what is going on."""
        output, code, complaint = git.result("rev-parse", "HEAD", "--symbolic-full-name", "HEAD", GIT_DIR=git.agent)
        words = output.decode("utf-8", "surrogateescape").split("\n")
        if code or len(words) < 2 or _ID.fullmatch(words[0]) is None or len(words[0]) != len(self._home):
            if "ambiguous argument" in complaint:
                raise _NotThere("HEAD has no commit in the sandbox")
            raise failed("rev-parse", code, complaint)
        self.report["branch"] = "" if words[1] == "HEAD" else words[1]
        found = {what for name, what in _UNDER_WAY if os.path.lexists(os.path.join(self._repository, name))}
        self.report["under_way"] = sorted(found)
        return words[0]

    def _find_objects(self, git: "PrivateGit", pairs: "list[str]") -> "list[str]":
        """Note the commits of which not too many paths changed, and return the objects that they need, by name."""
        needed = {}  # type: dict[str, None]
        most, done = self._request["most_paths"], 0
        words = ["diff-tree", "--stdin", "--root", "--always", "-r", "-t", "--raw", "--no-renames", "--no-abbrev"]
        with tempfile.TemporaryFile(dir=self._own) as given:
            given.write("".join(pair + "\n" for pair in pairs).encode("ascii"))
            given.seek(0)
            with git.started([*words, "--no-ext-diff"], given) as (process, complaint_of):
                paths, lines, of_commit = 0, 0, {}  # type: int, int, dict[str, None]
                for line in process.stdout:
                    lines += 1
                    if not line.startswith(b":"):  # the id of the next commit: the one before is complete
                        needed.update(of_commit)
                        of_commit, done = {}, done + 1
                        continue
                    before, mode, old, new = line[1:].decode("ascii", "replace").split(" ")[:4]
                    if before == "040000":
                        of_commit[old] = None
                    if mode == "040000" or (mode[:2] in ("10", "12") and self._request["with_contents"]):
                        of_commit[new] = None
                    paths += before not in ("000000", "040000") or mode not in ("000000", "040000")
                    if paths > most or lines > 4 * most:
                        done -= 1
                        break
                else:
                    needed.update(of_commit)
                    if process.wait():
                        raise failed("diff-tree", process.returncode, complaint_of())
        self.report["commits"] = pairs[:done]
        commits = {name: None for pair in pairs[:done] for name in pair.split(" ")}
        return [*commits, *(name + "^{tree}" for name in commits), *needed]

    def _within_limit(self, git: "PrivateGit", objects: "list[str]") -> "list[str]":
        """Return the ids of commits and folders, and of the smallest contents, as long as there is room for them."""
        disk = os.statvfs(self._own)
        left = min(self._request["most_bytes"], disk.f_bavail * disk.f_frsize - _SPARE_BYTES)
        listed = git.run("cat-file", "--batch-check", text="\n".join([*objects, ""]).encode("ascii"))
        kept, contents = {}, {}  # type: dict[str, None], dict[str, int]
        for line in listed.decode("ascii", "replace").splitlines():
            words = line.split(" ")
            if words[1] == "blob":
                contents[words[0]] = int(words[2])
            elif words[1] in ("commit", "tree"):
                kept[words[0]] = None
                left -= int(words[2])
            elif line.endswith("^{tree} missing"):
                raise Refused("failed", f"a folder of the commit {words[0][:10]} is missing")
        if left < 0:
            raise Refused("failed", "the disk there has no room for a pack of them, or they are too large")
        for name, size in sorted(contents.items(), key=lambda item: item[1]):
            left -= size
            if left < 0:
                break
            kept[name] = None
        return list(kept)

    def _write_pack(self, git: "PrivateGit", ids: "list[str]") -> None:
        words = ["pack-objects", "--stdout", "--quiet", "--no-reuse-delta", "--threads=1", "--window-memory=64m"]
        sha256, length = hashlib.sha256(), 0
        os.mkdir(os.path.join(self._own, "copies"), 0o700)
        with tempfile.TemporaryFile(dir=self._own) as given, open(os.path.join(self._own, "copies", "0"), "xb") as to:
            given.write("\n".join([*ids, ""]).encode("ascii"))
            given.seek(0)
            with git.started(words, given) as (process, complaint_of):
                for block in iter(lambda: process.stdout.read(BLOCK), b""):
                    sha256.update(block)
                    length += len(block)
                    to.write(block)
                if process.wait():
                    raise failed("pack-objects", process.returncode, complaint_of())
        self.report["pack"] = [length, sha256.hexdigest()]

    def _find_others(self, git: "PrivateGit", head: "str") -> None:
        """Count the stashes, and the commits of other branches that neither HEAD nor `home` reaches."""
        words = ("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/stash")
        output, code, _ = git.result(*words, GIT_DIR=git.agent)
        for line in output.decode("utf-8", "surrogateescape").split("\n") if code == 0 else ():
            name, _, reference = line.partition(" ")
            if reference == "refs/stash":
                self.report["stashes"] = self._count_stashes()
            elif _ID.fullmatch(name) and reference not in (self.report["branch"], "refs/heads/home"):
                if len(self.report["branches"]) >= _MOST_BRANCHES:
                    self.report["more_branches"] += 1
                    continue
                count, code, _ = git.result("rev-list", "--count", name, "^" + head, "^" + self._home, "--")
                if code == 0 and int(count):  # of a branch that cannot be read there is nothing to tell
                    self.report["branches"].append([reference[len("refs/heads/") :], int(count)])

    def _count_stashes(self) -> "int":
        """Return the number of lines in the log of stashes; with references in tables there is none: one at least."""
        path = os.path.join(self._repository, "logs", "refs", "stash")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return 1
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return 1
            return max(1, file.read(_MOST_OF_LOG).count(b"\n"))


def _give_up(_number: "int", _frame: "Any") -> None:
    raise _TooLate("failed", f"it takes longer than {_MOST_S} s")


def _report(request: "dict[str, Any]", own: "str") -> "dict[str, Any]":
    """Pack the commits, and return what is reported."""
    commits = _Commits(request, os.environ["AGENT_WORKSPACE"], own)
    try:
        signal.signal(signal.SIGALRM, _give_up)
        signal.alarm(_MOST_S)
        commits.pack()
    except _NotThere as reason:
        commits.report["absence"] = str(reason)
    except Refused as refused:
        commits.report["absence" if refused.args[0] == "no-git" else "failure"] = refused.args[1]
    except OSError as failure:
        commits.report["failure"] = os.strerror(failure.errno or 0)
    finally:
        signal.alarm(0)
    if commits.report["absence"] or commits.report["failure"]:
        commits.report.update(commits=[], unlisted=0, pack=[0, ""], branches=[])
    return commits.report


def main() -> None:
    """Read the request beside this file, pack the commits, and print the report, or keep a long one beside the pack."""
    own = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(own, "commits.json"), encoding="ascii") as file:
        request = json.load(file)
    shutil.rmtree(os.path.join(own, "syncd"), ignore_errors=True)  # what is imported is in memory
    for name in ("commits.json", os.path.basename(__file__)):
        with contextlib.suppress(OSError):  # then the export holds it too, which does no harm
            os.unlink(os.path.join(own, name))
    try:
        row = [request["word"], "done", _report(request, own)]
    finally:
        shutil.rmtree(os.path.join(own, "git"), ignore_errors=True)
    line = json.dumps(row, separators=(",", ":")) + "\n"
    if len(line) > _LONGEST_LINE:
        content = line.encode("ascii")
        with contextlib.suppress(OSError):  # else the log may take it
            with open(os.path.join(own, "report.json"), "xb") as file:
                file.write(content)
            row = [request["word"], "report", len(content), hashlib.sha256(content).hexdigest()]
            line = json.dumps(row, separators=(",", ":")) + "\n"
    sys.stdout.write(line)


if __name__ == "__main__":
    main()
