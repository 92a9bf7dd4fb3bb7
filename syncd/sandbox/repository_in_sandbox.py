"""The program that keeps a git repository of what was sent. It runs in the sandbox, alone, with Python 3.6 or later.

The repository's branch `home` has a commit for each sync that it is told of. The agent's branch, its index and HEAD
follow only while they are as this program left them and the work tree is clean: what someone does there is not undone.

git runs with a private folder as its repository, which only shares the objects. So nothing that the agent, the machine
or a file in the workspace configures starts a program or changes a content. Only references are read and moved in the
agent's own repository, without hooks.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections import namedtuple
from typing import Any

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK = 1 << 18
_DIGEST_BYTES = 16
# A larger file is never converted: git would have to hold it in memory.
_CONVERTED_BYTES = 16 << 20
_SPARE_BYTES = 64 << 20  # stay free on the disk
_ATTRIBUTES = b".gitattributes"
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
# What git takes for its own folder, or for the list of its submodules, on some system, and refuses (path.c, utf8.c).
_IGNORED = re.compile(b"\xe2\x80[\x8c-\x8f\xaa-\xae]|\xe2\x81[\xaa-\xaf]|\xef\xbb\xbf")
_REFUSED = re.compile(rb"(\.git|git~1)[ .]*([:\\].*)?", re.IGNORECASE | re.DOTALL)
_REFUSED_LINK = re.compile(rb"(\.gitmodules|gitmod~[1-4]|gi7eb[a~0-9]+)[ .]*([:\\].*)?", re.IGNORECASE | re.DOTALL)
_REFUSED_PATTERNS = ".[gG][iI][tT]\n.[gG][iI][tT][ .:\\\\]*\n[gG][iI][tT]~1*\n"
_MODES = {"f": b"100644", "x": b"100755", "l": b"120000"}
_PRIVATE = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"
_NEW = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
_AGENT = "[user]\n\tname = agent\n\temail = agent@localhost\n"
_OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.compression=1",
    "core.untrackedCache=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "fastimport.unpackLimit=200",
)


class _Refused(Exception):
    """The repository cannot be made or followed; the arguments are the state that is reported, and the reason."""


class _Git:
    """git, with the private folder as its repository."""

    def __init__(self, private: "str", workspace: "str", within_s: "float") -> None:
        self.workspace = workspace
        self.within_s = within_s  # for each command
        self.private = private
        self.agent = os.path.join(workspace, ".git")
        for folder in ("refs/heads", "objects", "info"):
            os.makedirs(os.path.join(private, folder))
        _write(os.path.join(private, "HEAD"), "ref: refs/heads/home\n")
        _write(os.path.join(private, "config"), _PRIVATE)
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "HOME": "/dev/null",
            "XDG_CONFIG_HOME": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_DIR": private,
            "GIT_WORK_TREE": workspace,
            "GIT_OBJECT_DIRECTORY": os.path.join(self.agent, "objects"),
        }

    def run(self, *arguments: "str", **options: "Any") -> "bytes":
        """Run a command, and return its output. Raises `_Refused` unless its exit code is in `allowed`."""
        output, code = self.result(*arguments, **options)
        if code:
            raise _Refused("failed", f"git {arguments[0]} ended with {code}: {self._last_complaint}")
        return output

    def result(
        self, *arguments: "str", text: "bytes" = b"", index: "str" = "", at_agents: "bool" = False
    ) -> "tuple[bytes, int]":
        """Run a command, and return its output and exit code; `at_agents`: in the agent's repository.

        Raises `_Refused` if there is no git, or if it takes too long.
        """
        environment = dict(self.environment)
        if index:
            environment["GIT_INDEX_FILE"] = index
        if at_agents:
            environment["GIT_DIR"] = self.agent
        with _translated(arguments[0]):
            done = subprocess.run(  # noqa: UP022 - Python 3.6 may run this
                self.command(arguments),
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
                cwd=self.workspace,
                env=environment,
                timeout=self.within_s,
            )
        self._last_complaint = done.stderr.decode("utf-8", "replace").strip()[-200:]
        return done.stdout, done.returncode

    def command(self, arguments: "Any") -> "list[str]":
        """Return the command line."""
        return ["git"] + [part for option in _OPTIONS for part in ("-c", option)] + list(arguments)

    def reference(self, name: "str") -> "str":
        """Return the commit of a reference in the agent's repository; empty if there is none."""
        output, code = self.result("rev-parse", "--verify", "--quiet", name + "^{commit}", at_agents=True)
        return "" if code else output.decode("ascii").strip()

    def move(self, name: "str", to: "str", before: "str") -> "bool":
        """Move a reference of the agent's repository if it still is as before; empty: it must not exist."""
        _, code = self.result("update-ref", name, to, before or "0" * 40, at_agents=True)
        return code == 0


@contextlib.contextmanager
def _translated(command: "str") -> "Any":
    try:
        yield
    except subprocess.TimeoutExpired:
        raise _Refused("failed", f"git {command} takes too long") from None
    except FileNotFoundError:
        raise _Refused("no-git", "git is not installed") from None
    except OSError as failure:
        raise _Refused("failed", f"git cannot be run: {os.strerror(failure.errno or 0)}") from None


# The version of one path that was sent. `kind` is f, x (an executable file), l, - for one that is gone, or ? for a file
# whose content is not known, which stays as it was.
_Sent = namedtuple("_Sent", "path kind size digest target")  # noqa: PYI024 - Python 3.6 may run this


class _SentPaths:
    """The paths that are new, changed or gone, each with the version that was sent."""

    def __init__(self, request: "dict[str, Any]") -> None:
        self.paths = [_bytes(path) for path in request["paths"].split("\0")] if request["kinds"] else []
        self._kinds = request["kinds"]
        self._sizes = iter(request["sizes"])
        self._targets = iter(request["targets"])
        self._digests = base64.b64decode(request["digests"])

    def each(self) -> "Any":
        """Yield each version, once."""
        place = 0
        for path, kind in zip(self.paths, self._kinds):  # noqa: B905
            if kind in "fx":
                yield _Sent(path, kind, next(self._sizes), self._digests[place : place + _DIGEST_BYTES], b"")
                place += _DIGEST_BYTES
            else:
                yield _Sent(path, kind, 0, b"", _bytes(next(self._targets)) if kind == "l" else b"")


class _Importer:
    """Makes a commit of what was sent, from the files there that are as they were sent."""

    def __init__(self, git: "_Git", person: "bytes", message: "bytes") -> None:
        self._git = git
        self._head = b"commit refs/heads/home\ncommitter %s\ndata %d\n%s\n" % (person, len(message), message)
        self._top = os.open(git.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._attributes = {}  # type: dict[bytes, bytes]
        self._lines = []  # type: list[bytes]
        self._converted = []  # type: list[tuple[_Sent, os.stat_result]]
        self._marks = 0
        self._open_folder, self._open_descriptor = b"", -1
        self.left_out = 0

    def commit(self, items: "_SentPaths", parent: "str", whole: "bool") -> "str":
        """Return the id of the commit, which is the parent if nothing is otherwise than there."""
        complaints = os.path.join(self._git.private, "complaints")
        with open(complaints, "wb") as errors, _translated("fast-import"):
            process = subprocess.Popen(
                self._git.command(["fast-import", "--quiet", "--done", "--depth=0"]),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=self._git.environment,
            )
            try:
                with contextlib.suppress(BrokenPipeError), process.stdin as into:  # type: ignore[union-attr]
                    self._write(into, items, parent, whole)
                code = process.wait(self._git.within_s)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if code:
            with open(complaints, "rb") as file:
                reason = file.read(2000).decode("utf-8", "replace").strip().splitlines()[:1]
            raise _Refused("failed", "git fast-import ended with {}: {}".format(code, "".join(reason)))
        made = self._git.run("rev-parse", "refs/heads/home").decode("ascii").strip()
        if parent and self._tree(made) == self._tree(parent):
            self._git.run("update-ref", "refs/heads/home", parent)
            return parent
        return made

    def _tree(self, commit: "str") -> "bytes":
        return self._git.run("rev-parse", commit + "^{tree}")

    def _write(self, into: "Any", items: "_SentPaths", parent: "str", whole: "bool") -> None:
        gone = []
        for sent in items.each():
            if sent.kind == "?" or _is_refused(sent):
                self.left_out += 1
            elif sent.kind == "-":
                gone.append(sent.path)
            elif not (self._link(into, sent) if sent.kind == "l" else self._file(into, sent)):
                self.left_out += 1
        self._convert()
        if whole and parent:
            listed = self._git.run("ls-tree", "-r", "-z", "--name-only", "--full-tree", parent)
            gone += set(listed.split(b"\0")[:-1]).difference(items.paths)
        into.write(self._head)
        if parent:
            into.write(b"from %s\n" % parent.encode("ascii"))
        # A file may take the place of a directory, and the other way round: what is gone makes room first.
        for path in gone:
            into.write(b"D %s\n" % _quoted(path))
        into.write(b"".join(self._lines))
        into.write(b"done\n")

    def _link(self, into: "Any", sent: "_Sent") -> "bool":
        """Add a link, and return True, if it is as it was sent."""
        folder, _, name = sent.path.rpartition(b"/")
        try:
            if os.readlink(name, dir_fd=self._descriptor(folder)) != sent.target:
                return False
        except OSError:
            return False
        self._begin_blob(into, len(sent.target))
        into.write(sent.target + b"\n")
        return self._add(sent, b":%d" % self._marks)

    def _file(self, into: "Any", sent: "_Sent") -> "bool":
        """Add a file, and return True, if it is as it was sent."""
        folder, _, name = sent.path.rpartition(b"/")
        try:
            descriptor = os.open(name, _FILE, dir_fd=self._descriptor(folder))
        except OSError:
            return False
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != sent.size:
                return False
            if sent.size > _CONVERTED_BYTES:
                return self._copy(into, sent, file)
            content = b"".join(iter(lambda: file.read(_BLOCK), b""))
        if len(content) != sent.size or hashlib.sha256(content).digest()[:_DIGEST_BYTES] != sent.digest:
            return False
        if self._may_be_converted(sent.path, content):
            self._converted.append((sent, status))
            return True
        self._begin_blob(into, len(content))
        into.write(content)
        into.write(b"\n")
        return self._add(sent, b":%d" % self._marks)

    def _copy(self, into: "Any", sent: "_Sent", file: "Any") -> "bool":
        """Add a large file block by block, and return True, if it is as it was sent; else its object is not used."""
        sha256, left = hashlib.sha256(), sent.size
        self._begin_blob(into, left)
        while left:
            block = file.read(min(left, _BLOCK)) or b"\0" * min(left, _BLOCK)  # it was cut short
            sha256.update(block)
            into.write(block)
            left -= len(block)
        into.write(b"\n")
        return sha256.digest()[:_DIGEST_BYTES] == sent.digest and self._add(sent, b":%d" % self._marks)

    def _begin_blob(self, into: "Any", size: "int") -> None:
        self._marks += 1
        into.write(b"blob\nmark :%d\ndata %d\n" % (self._marks, size))

    def _add(self, sent: "_Sent", blob: "bytes") -> "bool":
        self._lines.append(b"M %s %s %s\n" % (_MODES[sent.kind], blob, _quoted(sent.path)))
        return True

    def _may_be_converted(self, path: "bytes", content: "bytes") -> "bool":
        """Return True if git may put another content into its objects: line ends, keywords, or another encoding."""
        has_mark = b"\r" in content or b"\0" in content or b"$Id" in content
        folder = path
        while folder:
            folder = folder.rpartition(b"/")[0]
            attributes = self._attributes.get(folder)
            if attributes is None:
                attributes = self._attributes[folder] = self._attributes_in(folder)
            if attributes and (has_mark or b"working-tree-encoding" in attributes):
                return True
        return False

    def _attributes_in(self, folder: "bytes") -> "bytes":
        try:
            with open(os.open(_ATTRIBUTES, _FILE, dir_fd=self._descriptor(folder)), "rb") as file:
                return file.read(_CONVERTED_BYTES)
        except OSError:
            return b""

    def _convert(self) -> None:
        """Have git make the objects of files that it may convert, as its own `add` would."""
        if not self._converted:
            return
        listed = b"".join(_quoted(sent.path) + b"\n" for sent, _ in self._converted)
        output, code = self._git.result("hash-object", "-w", "--stdin-paths", text=listed)
        if code:  # one cannot be converted: `add` would refuse it, too
            output = self._git.run("hash-object", "-w", "--no-filters", "--stdin-paths", text=listed)
        for (sent, before), blob in zip(self._converted, output.split()):  # noqa: B905
            folder, _, name = sent.path.rpartition(b"/")
            with contextlib.suppress(OSError):
                now = os.stat(name, dir_fd=self._descriptor(folder), follow_symlinks=False)
                if _stamp(now) == _stamp(before):
                    self._add(sent, blob)
                    continue
            self.left_out += 1

    def _descriptor(self, folder: "bytes") -> "int":
        """Return a descriptor of a directory, reached through no link, until the next call. Raises `OSError`."""
        if not folder:
            return self._top
        if folder != self._open_folder:
            descriptor = self._top
            for name in folder.split(b"/"):
                try:
                    inner = os.open(name, _FOLDER, dir_fd=descriptor)
                finally:
                    if descriptor != self._top:
                        os.close(descriptor)
                descriptor = inner
            if self._open_folder:
                os.close(self._open_descriptor)
            self._open_folder, self._open_descriptor = folder, descriptor
        return self._open_descriptor


class _Repository:
    """The repository in the sandbox, and where this program left it."""

    def __init__(self, request: "dict[str, Any]", workspace: "str", own: "str") -> None:
        self._request = request
        self._workspace = workspace
        self.folder = os.path.join(workspace, ".git")
        self._notes = os.path.join(self.folder, "syncd")  # this program's own files
        self._git = _Git(os.path.join(own, "git"), workspace, request["within_s"])
        self.left_out = 0

    def follow(self) -> "dict[str, Any]":
        """Make the repository, or have it follow; return what is reported."""
        if not self._is_there():
            if not self._request["whole"]:
                raise _Refused("lost", "there is no repository any more")
            home = self._make()
            return {"state": "made", "home": home, "left_out": self.left_out, "moved": True}
        self._git.run("rev-parse", "--git-dir", at_agents=True)  # or else each reference seems to be missing
        before = self._git.reference(_HOME)
        if not before:
            raise _Refused("foreign", "someone else made a repository there")
        # The same changes may have been made by an earlier run whose answer was lost.
        if self._request["home"] not in (before, self._git.reference(_HOME + "^")) and not self._request["whole"]:
            raise _Refused("lost", "another commit is there")
        self._remove_leftovers()
        if self._read("info/exclude") in (self._read("syncd/exclude"), self._exclude_text()):
            self._write_excludes()
        home = self._import(before)
        if home != before and not self._git.move(_HOME, home, before):
            raise _Refused("failed", "someone else moves the references")
        self._move_home(before, home)
        return {"state": "followed", "home": home, "left_out": self.left_out, "moved": self._move_agent(home)}

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
        """Wait until no other run of this program is under way: one may have been given up. Raises `_Refused`."""
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
                    raise _Refused("failed", "another run is under way") from None
            time.sleep(0.05)  # noqa: TID251

    def _is_there(self) -> "bool":
        """Return True if there is a repository of ours. Raises `_Refused` if there is one of someone else's."""
        names = self._names()
        if not names:
            return names is not None and self._removed_remains()
        if not (names >= {"syncd", "HEAD"} or self._are_remains(names)):
            raise _Refused("foreign", "someone else made a repository there")
        self._lock()
        return "HEAD" in (self._names() or ()) or self._removed_remains()  # the other run may have completed it

    def _names(self) -> "set[str] | None":
        """Return the names in the repository's folder; None if there is none. Raises `_Refused` if it is no folder."""
        try:
            if stat.S_ISDIR(os.lstat(self.folder).st_mode):
                return set(os.listdir(self.folder))
        except FileNotFoundError:
            return None
        raise _Refused("foreign", "someone else made a repository there")

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
            raise _Refused("failed", "someone else makes a repository at this moment") from None
        self._lock()
        for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
            os.makedirs(os.path.join(self.folder, folder))
        _write(os.path.join(self.folder, "config"), _NEW + ("" if self._has_identity() else _AGENT))
        self._write_excludes()
        home = self._import("")
        branch = self._request["branch"]
        for name in {_HOME, "refs/heads/home", "refs/heads/" + branch}:
            path = os.path.join(self.folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _write(path, home + "\n")
        index = os.path.join(self._notes, "index")
        self._git.run("read-tree", home, index=index)
        self._git.result("update-index", "-q", "--refresh", index=index)
        os.rename(index, os.path.join(self.folder, "index"))
        self._note(branch, home, home)
        # It is a repository from now on, and complete.
        head = os.path.join(self._notes, "HEAD")
        _write(head, "ref: refs/heads/" + branch + "\n")
        try:
            os.link(head, os.path.join(self.folder, "HEAD"))
        except FileExistsError:
            raise _Refused("foreign", "someone else made a repository there") from None
        os.unlink(head)
        return home

    def _import(self, parent: "str") -> "str":
        person = "syncd <syncd@localhost> {} {}".format(self._request["at_s"], self._request["zone"])
        importer = _Importer(self._git, person.encode("ascii"), _bytes(self._request["message"]))
        home = importer.commit(_SentPaths(self._request), parent, self._request["whole"])
        self.left_out = importer.left_out
        return home

    def _check_room(self) -> None:
        """Raise `_Refused` if the objects may not fit beside the workspace."""
        disk = os.statvfs(self._workspace)
        if sum(self._request["sizes"]) + _SPARE_BYTES > disk.f_bavail * disk.f_frsize:
            raise _Refused("failed", "the disk there has no room for a repository")

    def _has_identity(self) -> "bool":
        """Return True if whoever runs this has a name and an address for commits; only the settings are read."""
        with _translated("config"):
            done = subprocess.run(
                ["git", "config", "--get-regexp", r"^user\.(name|email)$"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=False,
                cwd="/",
                env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
                timeout=self._git.within_s,
            )
        return {line.split(b" ")[0] for line in done.stdout.splitlines()} >= {b"user.name", b"user.email"}

    def _write_excludes(self) -> None:
        for folder, name in (
            (self._git.private, "info/exclude"),
            (self.folder, "info/exclude"),
            (self._notes, "exclude"),
        ):
            _write(os.path.join(folder, name), self._exclude_text())

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
        _write(path + ".new", json.dumps({"branch": branch, "left": left, "moving": moving}))
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

    def _move_agent(self, home: "str") -> "bool":
        """Move the agent's branch and index to the commit, if they are as they were left and the work tree is clean."""
        try:
            note = json.loads(self._read("syncd/state") or "")
            branch, left = "refs/heads/" + str(note["branch"]), [str(note["left"]), str(note["moving"])]
        except (ValueError, TypeError, KeyError):
            return False
        at = self._git.reference(branch)
        if self._head() != branch or at not in left or any(map(self._exists, _UNDER_WAY)):
            return False
        self._copy_excludes()
        index = os.path.join(self._notes, "index")
        before = self._copy_index(index)
        if before is None or not any(self._index_is(index, commit) for commit in {*left, home} if commit):
            return False
        _, code = self._git.result("read-tree", "-i", "-m", home, index=index)
        status, code_of_status = self._git.result("status", "--porcelain", "-z", "--ignore-submodules=all", index=index)
        if code or code_of_status or status:
            return False
        self._note(str(note["branch"]), at, home)
        return self._install(index, before, branch, at, home)

    def _install(self, index: "str", before: "tuple[int, ...]", branch: "str", at: "str", home: "str") -> "bool":
        """Put the index in its place and move the branch, unless someone is about to change either."""
        place, lock = os.path.join(self.folder, "index"), os.path.join(self.folder, "index.lock")
        try:
            os.link(index, lock)  # as git's own lock; by its inode a later run knows that it is no one else's
        except OSError:
            return False
        try:
            if _stamp(os.lstat(place)) != before or self._head() != branch:
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
            with open(os.open(os.path.join(self.folder, "index"), _FILE), "rb") as source, open(to, "xb") as copy:
                before = _stamp(os.fstat(source.fileno()))
                shutil.copyfileobj(source, copy, _BLOCK)
        except OSError:
            return None
        return before

    def _index_is(self, index: "str", commit: "str") -> "bool":
        return self._git.result("diff-index", "--cached", "--quiet", commit, index=index)[1] == 0


def _is_refused(sent: "_Sent") -> "bool":
    """Return True if git refuses a tree with this path (read-cache.c, fsck.c)."""
    names = [_IGNORED.sub(b"", name) for name in sent.path.split(b"/")]
    return any(map(_REFUSED.fullmatch, names)) or (sent.kind == "l" and bool(_REFUSED_LINK.fullmatch(names[-1])))


def _stamp(status: "os.stat_result") -> "tuple[int, ...]":
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _bytes(name: "str") -> "bytes":
    return name.encode("utf-8", "surrogateescape")


def _quoted(path: "bytes") -> "bytes":
    """Return the path in double quotes, as git reads it: each byte that is not plain ASCII in octal digits."""
    plain = b"".join(b"%c" % byte if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte for byte in path)
    return b'"%s"' % plain


def _write(path: "str", text: "str") -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def main() -> None:
    """Read the request beside this file, follow it, and print the report."""
    own = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(own, "repository.json"), encoding="ascii") as file:
        request = json.load(file)
    try:
        report = _Repository(request, os.environ["AGENT_WORKSPACE"], own).follow()
    except _Refused as refused:
        report = {"state": refused.args[0], "why": refused.args[1]}
    except OSError as failure:
        report = {"state": "failed", "why": os.strerror(failure.errno or 0)}
    finally:
        shutil.rmtree(os.path.join(own, "git"), ignore_errors=True)
    sys.stdout.write(json.dumps([request["word"], "done", report], separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
