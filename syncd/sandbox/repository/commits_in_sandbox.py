"""The program that packs the agent's commits into a file beside itself, in the sandbox.

By git as no one has configured it (see `git_in_sandbox`): nothing that the agent, the machine or a file in the
workspace configures starts a program or changes a content.
"""

import contextlib
import hashlib
import os
from typing import Any

from syncd.sandbox.program_in_sandbox import BLOCK, FILE, SPARE_BYTES, bytes_of, run, text_of
from syncd.sandbox.repository.git_in_sandbox import ID, PrivateGit, Refused, answer, check

_MOST_LISTED = 100000  # commits that are counted
_MOST_BRANCHES = 100


class _Packer:
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
        self._report.update(branch=text_of(bytes_of(branch)), under_way=sorted(self._git.under_way()))
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
                if mode == "040000" or mode[:2] in ("10", "12"):
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
                self._report["branches"].append([text_of(bytes_of(reference[len("refs/heads/") :])), int(count)])

    def _count_stashes(self) -> "int":
        """Return the number of lines in the log of stashes; with references in tables there is none: one at least."""
        path = os.path.join(self._git.agent, "logs", "refs", "stash")
        with contextlib.suppress(OSError), open(os.open(path, FILE), "rb") as file:
            return max(1, (file.read(BLOCK) or b"").count(b"\n"))
        return 1


def pack(request: "dict[str, Any]", own: "str") -> "dict[str, Any]":
    """Pack the commits, and return the report."""
    return answer(request, own, lambda git: _Packer(git, request, own).pack())


if __name__ == "__main__":
    run(__file__, pack)
