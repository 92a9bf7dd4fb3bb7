"""The program of the repository. It runs in the sandbox, with Python 3.6 or later, and follows one of two requests.

`follow`: the repository holds what was sent. Its branch `home` has a commit for each sync that it is told of. The
agent's branch, its index and HEAD follow only while the branch has no commit of the agent's and the work tree is clean:
what someone does there is not undone. `pack`: the agent's commits become a file beside this program.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
from typing import Any

from syncd.sandbox.repository.commits_in_sandbox import SPARE_BYTES, CommitImporter, CommitPacker, stamp
from syncd.sandbox.repository.git_in_sandbox import (
    BLOCK,
    FILE,
    ID,
    NO_CONFIGURATION,
    PrivateGit,
    Refused,
    TooLate,
    as_bytes,
    write_text,
)

_LOCK_S = 7  # a run that was given up ends within that
_LONGEST_LINE = 4000  # some logs cut longer lines
_HOME = "refs/syncd/home"  # the last commit; the branch `home` is there for people, who may move it
_PARTS = {"syncd", "objects", "refs", "info", "config", "index"}  # of a repository, before it has its HEAD
_REFUSED_PATTERNS = ".[gG][iI][tT]\n.[gG][iI][tT][ .:\\\\]*\n[gG][iI][tT]~1*\n"
_NEW = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
_AGENT = "[user]\n\tname = agent\n\temail = agent@localhost\n"


class _Repository:
    """The repository in the sandbox."""

    def __init__(self, git: "PrivateGit", request: "dict[str, Any]") -> None:
        self._git = git
        self._request = request
        self._top = git.agent
        self._exclude = str(request["exclude"]) + _REFUSED_PATTERNS

    def follow(self) -> "dict[str, Any]":
        """Make the repository, or have it follow; return the report. Raises `Refused`, `OSError`."""
        names = self._names()
        if names:
            if not (names >= {"syncd", "HEAD"} or self._are_remains(names)):
                raise Refused("foreign", "someone else made a repository there")
            self._lock()
            names = self._names()  # another run may have completed it
        if names is not None and "HEAD" in names:
            return {"home": self._go_on()}
        if not self._request["whole"]:
            raise Refused("lost", "there is no repository any more")
        return {"home": self._make()}

    def _names(self) -> "set[str] | None":
        """Return the names in the repository's folder; None if there is none. Raises `Refused` if it is no folder."""
        try:
            if stat.S_ISDIR(os.lstat(self._top).st_mode):
                return set(os.listdir(self._top))
        except FileNotFoundError:
            return None
        raise Refused("foreign", "someone else made a repository there")

    def _are_remains(self, names: "set[str]") -> "bool":
        """Return True if it is one that this program did not complete, or wrote to while it was deleted."""
        has_references = any(files for _, _, files in os.walk(self._path("refs")))
        return names <= _PARTS and ("syncd" in names or not has_references)

    def _lock(self) -> None:
        """Wait until no other run of this program is under way: one may have been given up. Raises `Refused`."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._path("syncd"))  # for this program's own files
        self._locked = open(self._path("syncd/lock"), "ab")  # noqa: SIM115 - to the end
        signal.alarm(_LOCK_S)
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX)
        except TooLate:
            raise Refused("failed", "another run is under way") from None
        signal.alarm(self._request["within_s"])

    def _make(self) -> "str":
        """Make the repository, in place of what is left of one, and return its commit."""
        disk = os.statvfs(self._git.workspace)
        if sum(map(int, self._request["sizes"].split())) + SPARE_BYTES > disk.f_bavail * disk.f_frsize:
            raise Refused("failed", "the disk there has no room for a repository")
        # The references go first: see `_are_remains`.
        shutil.rmtree(self._path("refs"), ignore_errors=True)
        shutil.rmtree(self._top, ignore_errors=True)
        os.mkdir(self._top)
        self._lock()
        for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
            os.makedirs(self._path(folder))
        # Whoever commits there may have told git a name and an address; only the settings are read for that.
        persons = {name: os.environ.get(name) for name in NO_CONFIGURATION}  # type: dict[str, Any]
        words = ("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
        _, is_unknown, _ = self._git.result(*words, **persons)
        write_text(self._path("config"), _NEW + (_AGENT if is_unknown else ""))
        self._write_excludes()
        home, branch = CommitImporter(self._git, self._request).commit(""), self._request["branch"]
        for name in {_HOME, "refs/heads/home", "refs/heads/" + branch}:
            path = os.path.join(os.fsencode(self._top), as_bytes(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_text(path, home + "\n")
        index = self._path("syncd/index")
        self._git.run("read-tree", home, GIT_INDEX_FILE=index)
        self._git.result("update-index", "-q", "--refresh", GIT_INDEX_FILE=index)
        os.rename(index, self._path("index"))
        self._note(branch, home)
        # It is a repository from now on, and complete.
        head = self._path("syncd/HEAD")
        write_text(head, "ref: refs/heads/" + branch + "\n")
        os.link(head, self._path("HEAD"))
        os.unlink(head)
        return home

    def _go_on(self) -> "str":
        """Have the repository follow, and return its commit."""
        self._git.run("rev-parse", "--git-dir", GIT_DIR=self._git.agent)  # or else each reference seems to be missing
        before = self._git.reference(_HOME)
        if not before:
            raise Refused("foreign", "someone else made a repository there")
        # The same changes may have been made by an earlier run whose answer was lost.
        if self._request["home"] not in (before, self._git.reference(_HOME + "^")) and not self._request["whole"]:
            raise Refused("lost", "another commit is there")
        self._remove_leftovers()
        if self._read("info/exclude") in (self._read("syncd/exclude"), self._exclude):
            self._write_excludes()
        home = CommitImporter(self._git, self._request).commit(before)
        if home != before and not self._git.move(_HOME, home, before):
            raise Refused("failed", "someone else moves the references")
        self._move_home(home)
        with contextlib.suppress(OSError):  # someone changes the index or the branch
            self._move_agent(home)
        return home

    def _write_excludes(self) -> None:
        for name in ("info/exclude", "syncd/exclude"):
            write_text(self._path(name), self._exclude)

    def _remove_leftovers(self) -> None:
        """Remove what a run left that was killed: the lock of the index, if it is this program's, and its own files."""
        lock = self._path("index.lock")
        with contextlib.suppress(OSError):
            if os.path.samefile(lock, self._path("syncd/index")):
                os.unlink(lock)
        for name in ("syncd/index", "syncd/index.lock", "syncd/HEAD", _HOME + ".lock"):
            with contextlib.suppress(OSError):
                os.unlink(self._path(name))

    def _move_home(self, home: "str") -> None:
        """Move the branch `home`, unless someone works on it."""
        at = self._git.reference("refs/heads/home")
        linked = glob.glob(os.path.join(glob.escape(self._top), "worktrees", "*", "HEAD"))
        heads = map(self._head, ["HEAD", *linked])
        if at != home and "refs/heads/home" not in heads and (not at or self._git.is_ancestor(at, home)):
            self._git.move("refs/heads/home", home, at)

    def _move_agent(self, home: "str") -> None:
        """Move the agent's branch and index to the commit, if no one works there. Raises `OSError`.

        Then the branch that this program made is checked out and has no commit of anyone's, the index is that of such a
        commit, and the work tree is clean.
        """
        name, _, left = (self._read("syncd/state") or "").partition("\n")
        branch, index = "refs/heads/" + name, self._path("syncd/index")
        at = self._git.reference(branch)
        if self._head() != branch or not at or not self._git.is_ancestor(at, home):
            return
        if self._git.under_way() or os.path.lexists(self._path("sequencer")):
            return
        with contextlib.suppress(OSError):
            shutil.copyfile(self._path("info/exclude"), os.path.join(self._git.private, "info", "exclude"))
        before = self._copy_index(index)
        words = ("diff-index", "--cached", "--quiet")
        commits = {at, home, left if ID.fullmatch(left) else at}
        if all(self._git.result(*words, commit, GIT_INDEX_FILE=index)[1] for commit in commits):
            return
        _, code, _ = self._git.result("read-tree", "-i", "-m", home, GIT_INDEX_FILE=index)
        words = ("status", "--porcelain", "--ignore-submodules=all")
        if not code and self._git.result(*words, GIT_INDEX_FILE=index)[:2] == (b"", 0):
            self._note(name, at)
            self._install(index, before, branch, at, home)

    def _install(self, index: "str", before: "tuple[int, ...]", branch: "str", at: "str", home: "str") -> None:
        """Put the index in its place and move the branch, unless someone changes either. Raises `OSError`."""
        lock = self._path("index.lock")
        os.link(index, lock)  # as git's own lock; by its inode a later run knows that it is no one else's
        try:
            is_as_before = stamp(os.lstat(self._path("index"))) == before and self._head() == branch
            if is_as_before and (at == home or self._git.move(branch, home, at)):
                os.rename(lock, self._path("index"))
        finally:
            for path in (lock, index):
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def _copy_index(self, to: "str") -> "tuple[int, ...]":
        """Copy the agent's index, and return the stamp of what was copied. Raises `OSError`."""
        with open(os.open(self._path("index"), FILE), "rb") as source, open(to, "xb") as copy:
            before = stamp(os.fstat(source.fileno()))
            shutil.copyfileobj(source, copy, BLOCK)
        return before

    def _head(self, name: "str" = "HEAD") -> "str":
        """Return the reference that a HEAD names, this one or a linked work tree's; empty if it is detached."""
        head = self._read(name) or ""
        return head[5:].strip() if head.startswith("ref: ") else ""

    def _note(self, branch: "str", left: "str") -> None:
        """Note the agent's branch and the commit that its index holds, should the next move of both be cut short."""
        path = self._path("syncd/state")
        write_text(path + ".new", branch + "\n" + left)
        os.rename(path + ".new", path)

    def _path(self, name: "str") -> "str":
        return os.path.join(self._top, name)

    def _read(self, name: "str") -> "str | None":
        """Return the content of a small file of the repository; None if it cannot be read."""
        with contextlib.suppress(OSError), open(self._path(name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
        return None


def _give_up(_number: "int", _frame: "Any") -> None:
    raise TooLate("failed", "it takes too long")


def _report(request: "dict[str, Any]", own: "str") -> "dict[str, Any]":
    """Follow the request, and return the report."""
    try:
        signal.signal(signal.SIGALRM, _give_up)
        signal.alarm(request["within_s"])
        git = PrivateGit(os.path.join(own, "git"), os.environ["AGENT_WORKSPACE"])
        is_pack = request["verb"] == "pack"
        found = CommitPacker(git, request, own).pack() if is_pack else _Repository(git, request).follow()
        return dict(found, state="done")
    except Refused as refused:
        return {"state": refused.args[0], "why": refused.args[1]}
    except OSError as failure:
        return {"state": "failed", "why": os.strerror(failure.errno or 0)}
    finally:
        signal.alarm(0)
        shutil.rmtree(os.path.join(own, "git"), ignore_errors=True)


def main() -> None:
    """Read the request beside this file, follow it, and print the report, or keep a long one beside the pack."""
    own = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(own, "repository.json"), encoding="ascii") as file:
        request = json.load(file)
    line = _line(request, "done", _report(request, own))
    if len(line) > _LONGEST_LINE:
        content = line.encode("ascii")
        with contextlib.suppress(OSError):  # else the log may take it
            with open(os.path.join(own, "report.json"), "xb") as file:
                file.write(content)
            line = _line(request, "report", len(content), hashlib.sha256(content).hexdigest())
    sys.stdout.write(line)


def _line(request: "dict[str, Any]", *values: "Any") -> "str":
    return json.dumps([request["word"], *values], separators=(",", ":")) + "\n"


if __name__ == "__main__":
    main()
