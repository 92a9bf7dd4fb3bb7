"""The program of the repository in the sandbox, which holds what was sent.

Its branch `home` has a commit for each sync that it is told of. The agent's branch, its index and HEAD follow only
while the branch has no commit of the agent's and the work tree is clean: what someone does there is not undone.

By git as no one has configured it (see `git_in_sandbox`): nothing that the agent, the machine or a file in the
workspace configures starts a program or changes a content.
"""

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import stat
from typing import Any

from syncd.sandbox.program_in_sandbox import (
    BLOCK,
    DIGEST_BYTES,
    FILE,
    SPARE_BYTES,
    Alarm,
    Version,
    bytes_of,
    paths_of,
    run,
    stamp,
    versions_of,
)
from syncd.sandbox.repository.git_in_sandbox import (
    ID,
    LARGE_BYTES,
    NO_CONFIGURATION,
    PrivateGit,
    Refused,
    answer,
    check,
    write_text,
)

_LOCK_S = 7  # a run that was given up ends within that
_HOME = "refs/syncd/home"  # the last commit; the branch `home` is there for people, who may move it
_PARTS = {"syncd", "objects", "refs", "info", "config", "index"}  # of a repository, before it has its HEAD
_REFUSED_PATTERNS = ".[gG][iI][tT]\n.[gG][iI][tT][ .:\\\\]*\n[gG][iI][tT]~1*\n"
_NEW = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
_AGENT = "[user]\n\tname = agent\n\temail = agent@localhost\n"
_MARKS = (b"\r", b"\0", b"$Id")  # of a file that git may convert: line ends, an encoding, keywords
# What git takes for its own folder, or for the list of its submodules, on some system, and refuses (path.c, fsck.c).
_REFUSED = re.compile(rb"(^|/)(\.git|git~1)[ .]*([:\\][^/]*)?(/|\Z)", re.IGNORECASE)
_REFUSED_LINK = re.compile(rb"(^|/)(\.gitmodules|gitmod~[1-4])[ .]*([:\\][^/]*)?\Z", re.IGNORECASE)
_MODES = {"f": b"100644", "x": b"100755", "l": b"120000"}


class _Importer:
    """Makes a commit of what was sent, from the files there that are as they were sent.

    What is not, or what git refuses, stays as it is in the parent. Paths may lead through a link: what is read there is
    what was sent, or not used.
    """

    def __init__(self, git: "PrivateGit", request: "dict[str, Any]") -> None:
        self._git = git
        self._request = request
        self._paths = paths_of(request)
        self._top = os.fsencode(git.workspace)
        self._attributes = {}  # type: dict[bytes, bytes]
        self._lines = []  # type: list[bytes]
        self._converted = []  # type: list[tuple[bytes, Version, os.stat_result, bytes]]
        self._blobs = 0

    def commit(self, parent: "str") -> "str":
        """Return the id of the commit, which is the parent if nothing is otherwise than there."""
        with self._git.started(["fast-import", "--quiet", "--done", "--depth=0"], None) as (process, ended):
            with contextlib.suppress(BrokenPipeError), process.stdin as into:
                self._write(into, parent)
            check("fast-import", *ended())
        made = self._git.run("rev-parse", "refs/heads/home").decode("ascii").strip()
        return parent if parent and self._git.result("diff-tree", "--quiet", parent, made)[1] == 0 else made

    def _write(self, into: "Any", parent: "str") -> None:
        gone = []
        for path, versions in zip(self._paths, versions_of(self._request)):  # noqa: B905 - Python 3.6 may run this
            if not versions:
                gone.append(path)
            elif not (_REFUSED.search(path) or (versions[0].kind == "l" and _REFUSED_LINK.search(path))):
                with contextlib.suppress(OSError):
                    self._add(into, path, versions[0])
        self._convert()
        if self._request["whole"] and parent:
            listed = self._git.run("ls-tree", "-r", "-z", "--name-only", "--full-tree", parent)
            gone += set(listed.split(b"\0")[:-1]).difference(self._paths)
        person, message = bytes_of(self._request["person"]), bytes_of(self._request["message"])
        into.write(b"commit refs/heads/home\ncommitter %s\ndata %d\n%s\n" % (person, len(message), message))
        if parent:
            into.write(b"from %s\n" % parent.encode("ascii"))
        # A file may take the place of a directory, and the other way round: what is gone makes room first.
        for path in gone:
            into.write(b"D %s\n" % _quoted(path))
        into.write(b"".join(self._lines))
        into.write(b"done\n")

    def _add(self, into: "Any", path: "bytes", sent: "Version") -> None:
        """Add a file or a link if it is as it was sent. Raises `OSError`."""
        place = os.path.join(self._top, path)
        if sent.kind == "l" and os.readlink(place) == sent.target:
            self._name(path, sent, self._begin_blob(into, len(sent.target)))
            into.write(sent.target + b"\n")
        elif sent.kind in "fx":
            with open(os.open(place, FILE), "rb") as file:
                self._add_file(into, path, sent, file)

    def _add_file(self, into: "Any", path: "bytes", sent: "Version", file: "Any") -> None:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size != sent.size:
            return
        sha256, left, has_mark = hashlib.sha256(), sent.size, False
        blob = self._begin_blob(into, left)
        while left:
            block = file.read(min(left, BLOCK)) or b"\0" * min(left, BLOCK)  # it was cut short
            sha256.update(block)
            into.write(block)
            left -= len(block)
            has_mark = has_mark or any(mark in block for mark in _MARKS)
        into.write(b"\n")
        if sha256.digest()[:DIGEST_BYTES] != sent.digest:
            return  # no one uses the object
        # Git would have to hold a larger one in memory.
        if sent.size <= LARGE_BYTES and self._may_be_converted(path, has_mark):
            self._converted.append((path, sent, status, blob))
        else:
            self._name(path, sent, blob)

    def _begin_blob(self, into: "Any", size: "int") -> "bytes":
        self._blobs += 1
        into.write(b"blob\nmark :%d\ndata %d\n" % (self._blobs, size))
        return b":%d" % self._blobs

    def _name(self, path: "bytes", sent: "Version", blob: "bytes") -> None:
        self._lines.append(b"M %s %s %s\n" % (_MODES[sent.kind], blob, _quoted(path)))

    def _may_be_converted(self, path: "bytes", has_mark: "bool") -> "bool":
        """Return True if git may put another content into its objects."""
        folder = path
        while folder:
            folder = folder.rpartition(b"/")[0]
            if folder not in self._attributes:
                self._attributes[folder] = b""
                path = os.path.join(self._top, folder, b".gitattributes")
                with contextlib.suppress(OSError), open(os.open(path, FILE), "rb") as file:
                    self._attributes[folder] = file.read(LARGE_BYTES) or b""
            attributes = self._attributes[folder]
            if attributes and (has_mark or b"working-tree-encoding" in attributes):
                return True
        return False

    def _convert(self) -> None:
        """Have git make the objects of files that it may convert, as its own `add` would."""
        if not self._converted:
            return
        listed = b"".join(_quoted(path) + b"\n" for path, _, _, _ in self._converted)
        output, code, _ = self._git.result("hash-object", "-w", "--stdin-paths", text=listed)
        # If one cannot be converted, `add` would refuse it, too.
        blobs = [blob for _, _, _, blob in self._converted] if code else output.split()
        for (path, sent, before, _), blob in zip(self._converted, blobs):  # noqa: B905
            with contextlib.suppress(OSError):
                if stamp(os.lstat(os.path.join(self._top, path))) == stamp(before):
                    self._name(path, sent, blob)


def _quoted(path: "bytes") -> "bytes":
    """Return the path in double quotes, as git reads it: each byte that is not plain ASCII in octal digits."""
    plain = b"".join(b"%c" % byte if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte for byte in path)
    return b'"%s"' % plain


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

        def lock() -> "bool":
            fcntl.flock(self._locked, fcntl.LOCK_EX)
            return True

        if not Alarm.within(_LOCK_S, lock):
            raise Refused("failed", "another run is under way")

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
        home, branch = _Importer(self._git, self._request).commit(""), self._request["branch"]
        for name in {_HOME, "refs/heads/home", "refs/heads/" + branch}:
            path = os.path.join(os.fsencode(self._top), bytes_of(name))
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
        home = _Importer(self._git, self._request).commit(before)
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


def follow(request: "dict[str, Any]", own: "str") -> "dict[str, Any]":
    """Have the repository follow, and return the report."""
    return answer(request, own, lambda git: _Repository(git, request).follow())


if __name__ == "__main__":
    run(__file__, follow)
