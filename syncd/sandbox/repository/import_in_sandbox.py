"""Makes commits of what was sent, by git as no one has configured it. It runs in the sandbox, with any Python from 3.6.

git runs with a private folder as its repository, which only shares the objects. So nothing that the agent, the machine
or a file in the workspace configures starts a program or changes a content. Only references are read and moved in the
agent's own repository, without hooks.
"""

import base64
import contextlib
import hashlib
import os
import re
import stat
import subprocess
from collections import namedtuple
from typing import Any

from syncd.sandbox.repository.git_in_sandbox import BLOCK, LARGE_BYTES, PrivateGit, Refused, as_bytes, failed

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIGEST_BYTES = 16
# A larger file is never converted: git would have to hold it in memory.
_CONVERTED_BYTES = LARGE_BYTES
_ATTRIBUTES = b".gitattributes"
# What git takes for its own folder, or for the list of its submodules, on some system, and refuses (path.c, utf8.c).
_IGNORED = re.compile(b"\xe2\x80[\x8c-\x8f\xaa-\xae]|\xe2\x81[\xaa-\xaf]|\xef\xbb\xbf")
_REFUSED = re.compile(rb"(\.git|git~1)[ .]*([:\\].*)?", re.IGNORECASE | re.DOTALL)
_REFUSED_LINK = re.compile(rb"(\.gitmodules|gitmod~[1-4]|gi7eb[a~0-9]+)[ .]*([:\\].*)?", re.IGNORECASE | re.DOTALL)
_MODES = {"f": b"100644", "x": b"100755", "l": b"120000"}

# The version of one path that was sent. `kind` is f, x (an executable file), l, - for one that is gone, or ? for a file
# whose content is not known, which stays as it was.
Sent = namedtuple("Sent", "path kind size digest target")  # noqa: PYI024 - Python 3.6 may run this


class SentPaths:
    """The paths that are new, changed or gone, each with the version that was sent."""

    def __init__(self, request: "dict[str, Any]") -> None:
        self.paths = [as_bytes(path) for path in request["paths"].split("\0")] if request["kinds"] else []
        self._kinds = request["kinds"]
        self._sizes = iter(request["sizes"])
        self._targets = iter(request["targets"])
        self._digests = base64.b64decode(request["digests"])

    def each(self) -> "Any":
        """Yield each version, once."""
        place = 0
        for path, kind in zip(self.paths, self._kinds):  # noqa: B905
            if kind in "fx":
                yield Sent(path, kind, next(self._sizes), self._digests[place : place + _DIGEST_BYTES], b"")
                place += _DIGEST_BYTES
            else:
                yield Sent(path, kind, 0, b"", as_bytes(next(self._targets)) if kind == "l" else b"")


class CommitImporter:
    """Makes a commit of what was sent, from the files there that are as they were sent."""

    def __init__(self, git: "PrivateGit", person: "bytes", message: "bytes") -> None:
        self._git = git
        self._head = b"commit refs/heads/home\ncommitter %s\ndata %d\n%s\n" % (person, len(message), message)
        self._top = os.open(git.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._attributes = {}  # type: dict[bytes, bytes]
        self._lines = []  # type: list[bytes]
        self._converted = []  # type: list[tuple[Sent, os.stat_result]]
        self._marks = 0
        self._open_folder, self._open_descriptor = b"", -1
        self.left_out = 0

    def commit(self, items: "SentPaths", parent: "str", whole: "bool") -> "str":
        """Return the id of the commit, which is the parent if nothing is otherwise than there."""
        arguments = ["fast-import", "--quiet", "--done", "--depth=0"]
        with self._git.started(arguments, subprocess.PIPE) as (process, complaint_of):
            with contextlib.suppress(BrokenPipeError), process.stdin as into:
                self._write(into, items, parent, whole)
            try:
                code = process.wait(self._git.within_s)
            except subprocess.TimeoutExpired:
                raise Refused("failed", "git fast-import takes too long") from None
            if code:
                raise failed("fast-import", code, complaint_of())
        made = self._git.run("rev-parse", "refs/heads/home").decode("ascii").strip()
        if parent and self._tree(made) == self._tree(parent):
            self._git.run("update-ref", "refs/heads/home", parent)
            return parent
        return made

    def _tree(self, commit: "str") -> "bytes":
        return self._git.run("rev-parse", commit + "^{tree}")

    def _write(self, into: "Any", items: "SentPaths", parent: "str", whole: "bool") -> None:
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

    def _link(self, into: "Any", sent: "Sent") -> "bool":
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

    def _file(self, into: "Any", sent: "Sent") -> "bool":
        """Add a file, and return True, if it is as it was sent."""
        folder, _, name = sent.path.rpartition(b"/")
        try:
            descriptor = os.open(name, FILE, dir_fd=self._descriptor(folder))
        except OSError:
            return False
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # of a folder, `open` makes no file
            os.close(descriptor)
            return False
        with open(descriptor, "rb", buffering=0) as file:
            if status.st_size != sent.size:
                return False
            if sent.size > _CONVERTED_BYTES:
                return self._copy(into, sent, file)
            content = b"".join(iter(lambda: file.read(BLOCK), b""))
        if len(content) != sent.size or hashlib.sha256(content).digest()[:_DIGEST_BYTES] != sent.digest:
            return False
        if self._may_be_converted(sent.path, content):
            self._converted.append((sent, status))
            return True
        self._begin_blob(into, len(content))
        into.write(content)
        into.write(b"\n")
        return self._add(sent, b":%d" % self._marks)

    def _copy(self, into: "Any", sent: "Sent", file: "Any") -> "bool":
        """Add a large file block by block, and return True, if it is as it was sent; else its object is not used."""
        sha256, left = hashlib.sha256(), sent.size
        self._begin_blob(into, left)
        while left:
            block = file.read(min(left, BLOCK)) or b"\0" * min(left, BLOCK)  # it was cut short
            sha256.update(block)
            into.write(block)
            left -= len(block)
        into.write(b"\n")
        return sha256.digest()[:_DIGEST_BYTES] == sent.digest and self._add(sent, b":%d" % self._marks)

    def _begin_blob(self, into: "Any", size: "int") -> None:
        self._marks += 1
        into.write(b"blob\nmark :%d\ndata %d\n" % (self._marks, size))

    def _add(self, sent: "Sent", blob: "bytes") -> "bool":
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
            with open(os.open(_ATTRIBUTES, FILE, dir_fd=self._descriptor(folder)), "rb") as file:
                return file.read(_CONVERTED_BYTES)
        except OSError:
            return b""

    def _convert(self) -> None:
        """Have git make the objects of files that it may convert, as its own `add` would."""
        if not self._converted:
            return
        listed = b"".join(_quoted(sent.path) + b"\n" for sent, _ in self._converted)
        output, code, _ = self._git.result("hash-object", "-w", "--stdin-paths", text=listed)
        if code:  # one cannot be converted: `add` would refuse it, too
            output = self._git.run("hash-object", "-w", "--no-filters", "--stdin-paths", text=listed)
        for (sent, before), blob in zip(self._converted, output.split()):  # noqa: B905
            folder, _, name = sent.path.rpartition(b"/")
            with contextlib.suppress(OSError):
                now = os.stat(name, dir_fd=self._descriptor(folder), follow_symlinks=False)
                if stamp(now) == stamp(before):
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


def _is_refused(sent: "Sent") -> "bool":
    """Return True if git refuses a tree with this path (read-cache.c, fsck.c)."""
    names = [_IGNORED.sub(b"", name) for name in sent.path.split(b"/")]
    return any(map(_REFUSED.fullmatch, names)) or (sent.kind == "l" and bool(_REFUSED_LINK.fullmatch(names[-1])))


def stamp(status: "os.stat_result") -> "tuple[int, ...]":
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _quoted(path: "bytes") -> "bytes":
    """Return the path in double quotes, as git reads it: each byte that is not plain ASCII in octal digits."""
    plain = b"".join(b"%c" % byte if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte for byte in path)
    return b'"%s"' % plain
