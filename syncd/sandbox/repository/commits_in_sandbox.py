"""Makes commits of what was sent, and packs those of the agent. It runs in the sandbox, with any Python from 3.6 on.

Both by git as no one has configured it (see `git_in_sandbox`): nothing that the agent, the machine or a file in the
workspace configures starts a program or changes a content.
"""

import base64
import contextlib
import hashlib
import os
import re
import stat
from collections import namedtuple
from typing import Any

from syncd.sandbox.repository.git_in_sandbox import BLOCK, FILE, ID, LARGE_BYTES, PrivateGit, Refused, as_bytes, check

SPARE_BYTES = 64 << 20  # stay free on the disk
_DIGEST_BYTES = 16
_MARKS = (b"\r", b"\0", b"$Id")  # of a file that git may convert: line ends, an encoding, keywords
# What git takes for its own folder, or for the list of its submodules, on some system, and refuses (path.c, fsck.c).
_REFUSED = re.compile(rb"(^|/)(\.git|git~1)[ .]*([:\\][^/]*)?(/|\Z)", re.IGNORECASE)
_REFUSED_LINK = re.compile(rb"(^|/)(\.gitmodules|gitmod~[1-4])[ .]*([:\\][^/]*)?\Z", re.IGNORECASE)
_MODES = {"f": b"100644", "x": b"100755", "l": b"120000"}
_MOST_LISTED = 100000  # commits that are counted
_MOST_BRANCHES = 100

# The version of one path that was sent. `kind` is f, x (an executable file), l, - for one that is gone, or u for a file
# whose content is not known, which stays as it was.
_Sent = namedtuple("_Sent", "path kind size digest target")  # noqa: PYI024 - Python 3.6 may run this


def _sent_versions(request: "dict[str, Any]", paths: "list[bytes]") -> "Any":
    """Yield each path's version, from the columns of the request."""
    kinds, sizes, targets = iter(request["kinds"]), map(int, request["sizes"].split()), iter(request["targets"])
    digests, place = base64.b64decode(request["digests"]), 0
    for path, count in zip(paths, request["counts"]):  # noqa: B905
        kind = next(kinds) if count == "1" else "-"
        if kind in "fx":
            yield _Sent(path, kind, next(sizes), digests[place : place + _DIGEST_BYTES], b"")
            place += _DIGEST_BYTES
        else:
            yield _Sent(path, kind, 0, b"", as_bytes(next(targets)) if kind == "l" else b"")


class CommitImporter:
    """Makes a commit of what was sent, from the files there that are as they were sent.

    What is not, or what git refuses, stays as it is in the parent. Paths may lead through a link: what is read there is
    what was sent, or not used.
    """

    def __init__(self, git: "PrivateGit", request: "dict[str, Any]") -> None:
        self._git = git
        self._request = request
        self._paths = [as_bytes(path) for path in request["paths"].split("\0")] if request["counts"] else []
        self._top = os.fsencode(git.workspace)
        self._attributes = {}  # type: dict[bytes, bytes]
        self._lines = []  # type: list[bytes]
        self._converted = []  # type: list[tuple[_Sent, os.stat_result, bytes]]
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
        for sent in _sent_versions(self._request, self._paths):
            if sent.kind == "-":
                gone.append(sent.path)
            elif not (_REFUSED.search(sent.path) or (sent.kind == "l" and _REFUSED_LINK.search(sent.path))):
                with contextlib.suppress(OSError):
                    self._add(into, sent)
        self._convert()
        if self._request["whole"] and parent:
            listed = self._git.run("ls-tree", "-r", "-z", "--name-only", "--full-tree", parent)
            gone += set(listed.split(b"\0")[:-1]).difference(self._paths)
        person, message = as_bytes(self._request["person"]), as_bytes(self._request["message"])
        into.write(b"commit refs/heads/home\ncommitter %s\ndata %d\n%s\n" % (person, len(message), message))
        if parent:
            into.write(b"from %s\n" % parent.encode("ascii"))
        # A file may take the place of a directory, and the other way round: what is gone makes room first.
        for path in gone:
            into.write(b"D %s\n" % _quoted(path))
        into.write(b"".join(self._lines))
        into.write(b"done\n")

    def _add(self, into: "Any", sent: "_Sent") -> None:
        """Add a file or a link if it is as it was sent. Raises `OSError`."""
        path = os.path.join(self._top, sent.path)
        if sent.kind == "l" and os.readlink(path) == sent.target:
            self._name(sent, self._begin_blob(into, len(sent.target)))
            into.write(sent.target + b"\n")
        elif sent.kind in "fx":
            with open(os.open(path, FILE), "rb") as file:
                self._add_file(into, sent, file)

    def _add_file(self, into: "Any", sent: "_Sent", file: "Any") -> None:
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
        if sha256.digest()[:_DIGEST_BYTES] != sent.digest:
            return  # no one uses the object
        # Git would have to hold a larger one in memory.
        if sent.size <= LARGE_BYTES and self._may_be_converted(sent.path, has_mark):
            self._converted.append((sent, status, blob))
        else:
            self._name(sent, blob)

    def _begin_blob(self, into: "Any", size: "int") -> "bytes":
        self._blobs += 1
        into.write(b"blob\nmark :%d\ndata %d\n" % (self._blobs, size))
        return b":%d" % self._blobs

    def _name(self, sent: "_Sent", blob: "bytes") -> None:
        self._lines.append(b"M %s %s %s\n" % (_MODES[sent.kind], blob, _quoted(sent.path)))

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
        listed = b"".join(_quoted(sent.path) + b"\n" for sent, _, _ in self._converted)
        output, code, _ = self._git.result("hash-object", "-w", "--stdin-paths", text=listed)
        # If one cannot be converted, `add` would refuse it, too.
        blobs = [blob for _, _, blob in self._converted] if code else output.split()
        for (sent, before, _), blob in zip(self._converted, blobs):  # noqa: B905
            with contextlib.suppress(OSError):
                if stamp(os.lstat(os.path.join(self._top, sent.path))) == stamp(before):
                    self._name(sent, blob)


def stamp(status: "os.stat_result") -> "tuple[int, ...]":
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _quoted(path: "bytes") -> "bytes":
    """Return the path in double quotes, as git reads it: each byte that is not plain ASCII in octal digits."""
    plain = b"".join(b"%c" % byte if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte for byte in path)
    return b'"%s"' % plain


class CommitPacker:
    """Packs the commits on the first-parent line of HEAD that the commit `home` does not reach.

    The pack has each commit, the folders by which it differs from its first parent, on both sides, and the contents of
    what it changed. Whoever has the pack can compare each commit with its parent, and needs no other object. Only HEAD
    and the references are asked from the agent's repository, by commands that read nothing else.
    """

    def __init__(self, git: "PrivateGit", request: "dict[str, Any]", own: "str") -> None:
        self._git = git
        self._request = request
        self._own = own
        self._report = {"stashes": 0, "branches": []}  # type: dict[str, Any]

    def pack(self) -> "dict[str, Any]":
        """Pack all that is asked for into `copies/0`, and return the report. Raises `Refused`, `OSError`."""
        if self._git.result("cat-file", "-t", self._request["home"])[0].strip() != b"commit":
            is_another = os.path.lexists(self._git.agent)
            why = "the repository in {} is not the one that syncd made" if is_another else "there is no .git in {}"
            raise Refused("lost", why.format("the sandbox's workspace"))
        head = self._find_head()
        words = ("rev-list", "--first-parent", "--parents", f"--max-count={_MOST_LISTED}")
        listed = self._git.run(*words, head, *self._ours(), "--").decode("ascii").splitlines()
        # Each commit with its first parent, the oldest first.
        pairs = [" ".join(line.split(" ")[:2]) for line in reversed(listed)]
        commits, objects = self._find_objects(pairs[: self._request["most_commits"]])
        self._report.update(commits=commits, unlisted=len(pairs) - len(commits))
        if commits:
            self._write_pack(self._within_limit(objects))
        self._find_others(head)
        return self._report

    def _ours(self) -> "list[str]":
        """Return what leaves our own commits out: those that `home` reaches, and a later one that was not answered."""
        latest = self._git.reference("refs/syncd/home")
        return ["^" + commit for commit in (self._request["home"], latest) if commit]

    def _find_head(self) -> "str":
        """Return the id of HEAD's commit; note its branch, and what is going on."""
        words = ("rev-parse", "HEAD", "--symbolic-full-name", "HEAD")
        output, code, complaint = self._git.result(*words, GIT_DIR=self._git.agent)
        lines = output.decode("utf-8", "surrogateescape").split("\n")
        if code and "ambiguous argument" in complaint:
            raise Refused("lost", "HEAD has no commit in the sandbox")
        check("rev-parse", code, complaint)
        if len(lines) < 2 or ID.fullmatch(lines[0]) is None:
            raise Refused("failed", "HEAD names no commit of such a repository")
        branch = "" if lines[1] == "HEAD" else lines[1]
        self._report.update(branch=branch, under_way=sorted(self._git.under_way()))
        return lines[0]

    def _find_objects(self, pairs: "list[str]") -> "tuple[list[str], list[str]]":
        """Return the commits of which not too many paths changed, and the objects that they need, by name."""
        needed = {}  # type: dict[str, None]
        most, done = self._request["most_paths"], 0
        words = ["diff-tree", "--stdin", "--root", "--always", "-r", "-t", "--raw", "--no-renames", "--no-abbrev"]
        given = "".join(pair + "\n" for pair in pairs).encode("ascii")
        with self._git.started([*words, "--no-ext-diff"], given) as (process, ended):
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
                check("diff-tree", *ended())
        commits = {name: None for pair in pairs[:done] for name in pair.split(" ")}
        return pairs[:done], [*commits, *(name + "^{tree}" for name in commits), *needed]

    def _within_limit(self, objects: "list[str]") -> "list[str]":
        """Return the ids of commits and folders, and of the smallest contents, as long as there is room for them."""
        disk = os.statvfs(self._own)
        left = min(self._request["most_bytes"], disk.f_bavail * disk.f_frsize - SPARE_BYTES)
        listed = self._git.run("cat-file", "--batch-check", text="\n".join([*objects, ""]).encode("ascii"))
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

    def _write_pack(self, ids: "list[str]") -> None:
        words = ["pack-objects", "--stdout", "--quiet", "--no-reuse-delta", "--threads=1", "--window-memory=64m"]
        sha256, length = hashlib.sha256(), 0
        os.mkdir(os.path.join(self._own, "copies"), 0o700)
        given, path = "\n".join([*ids, ""]).encode("ascii"), os.path.join(self._own, "copies", "0")
        with open(path, "xb") as to, self._git.started(words, given) as (process, ended):
            for block in iter(lambda: process.stdout.read(BLOCK), b""):
                sha256.update(block)
                length += len(block)
                to.write(block)
            check("pack-objects", *ended())
        self._report["pack"] = [length, sha256.hexdigest()]

    def _find_others(self, head: "str") -> None:
        """Count the stashes, and the commits of other branches that neither HEAD nor `home` reaches."""
        words = ("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/stash")
        listed = self._git.result(*words, GIT_DIR=self._git.agent)[0].decode("utf-8", "surrogateescape")
        references = {reference: name for name, _, reference in (line.partition(" ") for line in listed.split("\n"))}
        if references.pop("refs/stash", ""):
            self._report["stashes"] = self._count_stashes()
        for mine in (self._report["branch"], "refs/heads/home", ""):
            references.pop(mine, "")
        self._report["more_branches"] = max(0, len(references) - _MOST_BRANCHES)
        count_but_ours = ("rev-list", "--count", "^" + head, *self._ours())
        for reference, name in list(references.items())[:_MOST_BRANCHES]:
            count, code, _ = self._git.result(*count_but_ours, name, "--")
            if code == 0 and int(count):  # of a branch that cannot be read there is nothing to tell
                self._report["branches"].append([reference[len("refs/heads/") :], int(count)])

    def _count_stashes(self) -> "int":
        """Return the number of lines in the log of stashes; with references in tables there is none: one at least."""
        path = os.path.join(self._git.agent, "logs", "refs", "stash")
        with contextlib.suppress(OSError), open(os.open(path, FILE), "rb") as file:
            return max(1, (file.read(BLOCK) or b"").count(b"\n"))
        return 1
