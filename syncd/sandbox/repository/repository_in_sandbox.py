"""The program that keeps a git repository of what was sent. It runs in the sandbox, with Python 3.6 or later.

The repository's branch `home` has a commit for each sync that it is told of. The agent's branch, its index and HEAD
follow only while they are as this program left them and the work tree is clean: what someone does there is not undone.
The modules that it imports are sent with it.
"""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import sys
import time
from typing import Any

from syncd.sandbox.repository.git_in_sandbox import BLOCK, NO_CONFIGURATION, PrivateGit, Refused, as_bytes, write_text
from syncd.sandbox.repository.import_in_sandbox import FILE, CommitImporter, SentPaths, stamp

_SPARE_BYTES = 64 << 20  # stay free on the disk
_UNDER_WAY = (
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "sequencer",
    "BISECT_LOG",
    "rebase-merge",
    "rebase-apply",
)
_HOME = "refs/syncd/home"  # the last commit; the branch `home` is there for people, who may move it
_PARTS = {"syncd", "objects", "refs", "info", "config", "index"}  # of a repository, before it has its HEAD
_REFUSED_PATTERNS = ".[gG][iI][tT]\n.[gG][iI][tT][ .:\\\\]*\n[gG][iI][tT]~1*\n"
_NEW = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
_AGENT = "[user]\n\tname = agent\n\temail = agent@localhost\n"


class _Repository:
    """The repository in the sandbox, and where this program left it."""

    def __init__(self, request: "dict[str, Any]", workspace: "str", own: "str") -> None:
        self._request = request
        self._workspace = workspace
        self.folder = os.path.join(workspace, ".git")
        self._notes = os.path.join(self.folder, "syncd")  # this program's own files
        self._git = PrivateGit(os.path.join(own, "git"), workspace, request["within_s"])
        self.left_out = 0

    def follow(self) -> "dict[str, Any]":
        """Make the repository, or have it follow; return what is reported."""
        if not self._is_there():
            if not self._request["whole"]:
                raise Refused("lost", "there is no repository any more")
            home = self._make()
            return {"state": "made", "home": home, "left_out": self.left_out, "moved": True}
        self._git.run("rev-parse", "--git-dir", GIT_DIR=self._git.agent)  # or else each reference seems to be missing
        before = self._git.reference(_HOME)
        if not before:
            raise Refused("foreign", "someone else made a repository there")
        # The same changes may have been made by an earlier run whose answer was lost.
        if self._request["home"] not in (before, self._git.reference(_HOME + "^")) and not self._request["whole"]:
            raise Refused("lost", "another commit is there")
        self._remove_leftovers()
        if self._read("info/exclude") in (self._read("syncd/exclude"), self._exclude_text()):
            self._write_excludes()
        home = self._import(before)
        if home != before and not self._git.move(_HOME, home, before):
            raise Refused("failed", "someone else moves the references")
        self._move_home(before, home)
        return {"state": "followed", "home": home, "left_out": self.left_out, "moved": self._move_agent(before, home)}

    def _move_home(self, before: "str", home: "str") -> None:
        """Move the branch `home`, unless someone works on it."""
        at = self._git.reference("refs/heads/home")
        is_ours = not at or self._git.result("merge-base", "--is-ancestor", at, before)[1] == 0
        heads = {self._head(), *map(self._head, self._linked())}
        if is_ours and at != home and "refs/heads/home" not in heads:
            self._git.move("refs/heads/home", home, at)

    def _linked(self) -> "list[str]":
        """Return the names of the folders in `.git` that belong to the work trees which someone has beside this one."""
        try:
            return ["worktrees/" + name for name in os.listdir(os.path.join(self.folder, "worktrees"))]
        except OSError:
            return []

    def _lock(self) -> None:
        """Wait until no other run of this program is under way: one may have been given up. Raises `Refused`."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._notes)
        self._locked = os.open(
            os.path.join(self._notes, "lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600
        )  # to the end
        ends_s = time.monotonic() + self._request["within_s"] / 2  # noqa: TID251 - no clock of syncd's is here
        while True:
            try:
                return fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > ends_s:  # noqa: TID251
                    raise Refused("failed", "another run is under way") from None
            time.sleep(0.05)  # noqa: TID251

    def _is_there(self) -> "bool":
        """Return True if there is a repository of ours. Raises `Refused` if there is one of someone else's."""
        names = self._names()
        if not names:
            return names is not None and self._removed_remains()
        if not (names >= {"syncd", "HEAD"} or self._are_remains(names)):
            raise Refused("foreign", "someone else made a repository there")
        self._lock()
        return "HEAD" in (self._names() or ()) or self._removed_remains()  # the other run may have completed it

    def _names(self) -> "set[str] | None":
        """Return the names in the repository's folder; None if there is none. Raises `Refused` if it is no folder."""
        try:
            if stat.S_ISDIR(os.lstat(self.folder).st_mode):
                return set(os.listdir(self.folder))
        except FileNotFoundError:
            return None
        raise Refused("foreign", "someone else made a repository there")

    def _are_remains(self, names: "set[str]") -> "bool":
        """Return True if it is one that this program did not complete, or wrote to while it was deleted."""
        has_references = any(files for _, _, files in os.walk(os.path.join(self.folder, "refs")))
        return names <= _PARTS and ("syncd" in names or not has_references)

    def _removed_remains(self) -> "bool":
        """Remove them, and return False: no repository is there. The references go first: see `_are_remains`."""
        shutil.rmtree(os.path.join(self.folder, "refs"), ignore_errors=True)
        shutil.rmtree(self.folder)
        return False

    def _make(self) -> "str":
        self._check_room()
        try:
            os.mkdir(self.folder)
        except FileExistsError:
            raise Refused("failed", "someone else makes a repository at this moment") from None
        self._lock()
        for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
            os.makedirs(os.path.join(self.folder, folder))
        write_text(os.path.join(self.folder, "config"), _NEW + ("" if self._has_identity() else _AGENT))
        self._write_excludes()
        home = self._import("")
        branch = self._request["branch"]
        for name in {_HOME, "refs/heads/home", "refs/heads/" + branch}:
            path = os.path.join(os.fsencode(self.folder), as_bytes(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_text(path, home + "\n")
        index = os.path.join(self._notes, "index")
        self._git.run("read-tree", home, GIT_INDEX_FILE=index)
        self._git.result("update-index", "-q", "--refresh", GIT_INDEX_FILE=index)
        os.rename(index, os.path.join(self.folder, "index"))
        self._note(branch, home, home)
        # It is a repository from now on, and complete.
        head = os.path.join(self._notes, "HEAD")
        write_text(head, "ref: refs/heads/" + branch + "\n")
        try:
            os.link(head, os.path.join(self.folder, "HEAD"))
        except FileExistsError:
            raise Refused("foreign", "someone else made a repository there") from None
        os.unlink(head)
        return home

    def _import(self, parent: "str") -> "str":
        person = "syncd <syncd@localhost> {} {}".format(self._request["at_s"], self._request["zone"])
        importer = CommitImporter(self._git, person.encode("ascii"), as_bytes(self._request["message"]))
        home = importer.commit(SentPaths(self._request), parent, self._request["whole"])
        self.left_out = importer.left_out
        return home

    def _check_room(self) -> None:
        """Raise `Refused` if the objects may not fit beside the workspace."""
        disk = os.statvfs(self._workspace)
        if sum(self._request["sizes"]) + _SPARE_BYTES > disk.f_bavail * disk.f_frsize:
            raise Refused("failed", "the disk there has no room for a repository")

    def _has_identity(self) -> "bool":
        """Return True if whoever runs this has a name and an address for commits; only the settings are read."""
        persons = {name: os.environ.get(name) for name in NO_CONFIGURATION}  # type: dict[str, Any]
        output, _, _ = self._git.result("config", "--get-regexp", r"^user\.(name|email)$", **persons)
        return {line.split(b" ")[0] for line in output.splitlines()} >= {b"user.name", b"user.email"}

    def _write_excludes(self) -> None:
        for folder, name in (
            (self._git.private, "info/exclude"),
            (self.folder, "info/exclude"),
            (self._notes, "exclude"),
        ):
            write_text(os.path.join(folder, name), self._exclude_text())

    def _exclude_text(self) -> "str":
        return str(self._request["exclude"]) + _REFUSED_PATTERNS

    def _read(self, name: "str") -> "str | None":
        """Return the content of a small file of the repository; None if it cannot be read."""
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8", errors="surrogateescape") as file:
                return file.read()
        except OSError:
            return None

    def _note(self, branch: "str", left: "str", moving: "str") -> None:
        """Note where the agent's branch is left: at `left`, or, if this is cut short, at `moving`."""
        path = os.path.join(self._notes, "state")
        write_text(path + ".new", json.dumps({"branch": branch, "left": left, "moving": moving}))
        os.rename(path + ".new", path)

    def _head(self, linked: "str" = "") -> "str":
        """Return the reference that HEAD names, here or in a linked work tree; empty if it is detached."""
        head = self._read(os.path.join(linked, "HEAD")) or ""
        return head[5:].strip() if head.startswith("ref: ") else ""

    def _remove_leftovers(self) -> None:
        """Remove what a run left that was killed: the lock of the index, if it is this program's, and its own files."""
        lock, index = os.path.join(self.folder, "index.lock"), os.path.join(self._notes, "index")
        with contextlib.suppress(OSError):
            if os.path.samefile(lock, index):
                os.unlink(lock)
        for name in ("syncd/index", "syncd/index.lock", "syncd/HEAD", _HOME + ".lock"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, name))

    def _move_agent(self, before: "str", home: "str") -> "bool":
        """Move the agent's branch and index to the commit, if they are as they were left and the work tree is clean.

        So they are too if the agent brought its branch to the last commit itself.
        """
        try:
            note = json.loads(self._read("syncd/state") or "")
            branch, left = "refs/heads/" + str(note["branch"]), [str(note["left"]), str(note["moving"]), before]
        except (ValueError, TypeError, KeyError):
            return False
        at = self._git.reference(branch)
        if self._head() != branch or at not in left or any(map(self._exists, _UNDER_WAY)):
            return False
        self._copy_excludes()
        index = os.path.join(self._notes, "index")
        stamp_before = self._copy_index(index)
        if stamp_before is None or not any(self._index_is(index, commit) for commit in {*left, home} if commit):
            return False
        _, code, _ = self._git.result("read-tree", "-i", "-m", home, GIT_INDEX_FILE=index)
        words = ("status", "--porcelain", "-z", "--ignore-submodules=all")
        status, code_of_status, _ = self._git.result(*words, GIT_INDEX_FILE=index)
        if code or code_of_status or status:
            return False
        self._note(str(note["branch"]), at, home)
        return self._install(index, stamp_before, branch, at, home)

    def _install(self, index: "str", before: "tuple[int, ...]", branch: "str", at: "str", home: "str") -> "bool":
        """Put the index in its place and move the branch, unless someone is about to change either."""
        place, lock = os.path.join(self.folder, "index"), os.path.join(self.folder, "index.lock")
        try:
            os.link(index, lock)  # as git's own lock; by its inode a later run knows that it is no one else's
        except OSError:
            return False
        try:
            if stamp(os.lstat(place)) != before or self._head() != branch:
                return False
            if at != home and not self._git.move(branch, home, at):
                return False
            os.rename(lock, place)
        except OSError:
            return False
        finally:
            for path in (lock, index):
                with contextlib.suppress(OSError):
                    os.unlink(path)
        self._note(branch[len("refs/heads/") :], home, home)
        return True

    def _exists(self, name: "str") -> "bool":
        return os.path.lexists(os.path.join(self.folder, name))

    def _copy_excludes(self) -> None:
        with contextlib.suppress(OSError):
            shutil.copyfile(
                os.path.join(self.folder, "info", "exclude"), os.path.join(self._git.private, "info", "exclude")
            )

    def _copy_index(self, to: "str") -> "tuple[int, ...] | None":
        """Copy the agent's index, and return the stamp of what was copied; None if that cannot be done."""
        try:
            with open(os.open(os.path.join(self.folder, "index"), FILE), "rb") as source, open(to, "xb") as copy:
                before = stamp(os.fstat(source.fileno()))
                shutil.copyfileobj(source, copy, BLOCK)
        except OSError:
            return None
        return before

    def _index_is(self, index: "str", commit: "str") -> "bool":
        return self._git.result("diff-index", "--cached", "--quiet", commit, GIT_INDEX_FILE=index)[1] == 0


def main() -> None:
    """Read the request beside this file, follow it, and print the report."""
    own = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(own, "repository.json"), encoding="ascii") as file:
        request = json.load(file)
    try:
        report = _Repository(request, os.environ["AGENT_WORKSPACE"], own).follow()
    except Refused as refused:
        report = {"state": refused.args[0], "why": refused.args[1]}
    except OSError as failure:
        report = {"state": "failed", "why": os.strerror(failure.errno or 0)}
    finally:
        shutil.rmtree(os.path.join(own, "git"), ignore_errors=True)
    sys.stdout.write(json.dumps([request["word"], "done", report], separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
