"""Operations of people and programs on a workspace, one a method, on the paths that a scenario names.

An operation that does not fit (its file is missing, its name is taken) raises `OSError` and changes little or nothing:
so a scenario stays valid when some of its steps are left out. No operation follows a symlink, which could bring outside
files in. Three marks must never be uploaded: `SECRET` is only in files with secret names, `OUTSIDE` only outside of the
workspace, `IGNORED` only in files that an ignore file named before they were written.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import stat
from pathlib import Path
from random import Random

from tests.agent import Agent
from tests.fuzz.git import commit
from tests.system import trees
from tests.system.trees import Tree

SECRET = b"SECRET-never-uploaded!"
OUTSIDE = b"OUTSIDE-of-the-workspace"
IGNORED = b"IGNORED-by-a-rule-when-written"
MARKS = (SECRET, OUTSIDE, IGNORED)
IGNORE_RULE = "ignored*\n"
REPOSITORY = ".git"
OTHER_FOLDER = "\0"
"""In `Operations.unreported`: only a full scan finds the file."""
LONG_AGO_S = 1_000_000_000


class _Side:
    """The folder of one side, and its paths."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace

    def _place(self, path: str) -> Path:
        """Return the place of a new entry, and create the folders above it."""
        place = _inside(self.workspace, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def _existing(self, path: str) -> Path:
        place = _inside(self.workspace, path)
        place.lstat()
        return place

    def _file(self, path: str) -> Path:
        place = _inside(self.workspace, path)
        if not stat.S_ISREG(place.lstat().st_mode):
            raise IsADirectoryError(path)
        return place


class Operations(_Side):
    """The operations on one workspace. Two folders are beside it: one to move trees from and to, one for links to."""

    def __init__(self, workspace: Path, beside: Path) -> None:
        super().__init__(workspace)
        self._beside = beside / "beside"
        self._outside = beside / "outside"
        self._count = 0
        self._has_ignored = False
        self._before: dict[str, bytes | None] = {}
        self._mapped: dict[str, mmap.mmap] = {}
        self._open: dict[str, tuple[int, Path]] = {}
        self.unreported: set[str] = set()  # see `write_unlinked`
        self._beside.mkdir(exist_ok=True)
        self._outside.mkdir(exist_ok=True)
        for name in ("f", "g"):
            (self._outside / name).write_bytes(OUTSIDE)

    # -- contents

    def write(self, path: str, size: int, text: int) -> None:
        """Write the whole file, and create the folders above it."""
        place = self._place(path)
        self._remember(path, place)
        _write(place, _content(size, text))

    def write_noise(self, path: str, size: int, text: int) -> None:
        """Write a file that no compression makes smaller."""
        place = self._place(path)
        self._remember(path, place)
        _write(place, Random(text).randbytes(size))

    def revert(self, path: str) -> None:
        """Undo the last write."""
        place = self._place(path)
        if path not in self._before:
            raise FileNotFoundError(path)
        before = self._before.pop(path)
        if before is None:
            place.unlink()
        else:
            _write(place, before)

    def append(self, path: str, size: int, text: int) -> None:
        with self._file(path).open("ab") as file:
            file.write(_content(size, text))

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self._file(path), size)

    def overwrite(self, path: str, text: int) -> None:
        """Overwrite some bytes in the middle; the size stays."""
        file = self._file(path)
        with file.open("r+b") as opened:
            opened.seek(file.stat().st_size // 2)
            opened.write(_content(min(8, file.stat().st_size // 2), text))

    def write_keep_mtime(self, path: str, text: int) -> None:
        """Write other bytes of the same size, and restore the mtime."""
        file = self._file(path)
        self._remember(path, file)
        before = file.stat()
        _write(file, _content(before.st_size, text))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def recreate_keep_mtime(self, path: str, text: int) -> None:
        """Do `rm`, then `cp -p`: a new file of the same size and mtime, maybe with the old one's inode number."""
        file = self._file(path)
        self._remember(path, file)
        before = file.stat()
        file.unlink()
        _write_with_mtime_of(file, before, text)

    def replace_keep_mtime(self, path: str, text: int) -> None:
        """Do `cp -p` to a temporary name, and `mv` over the file."""
        file = self._file(path)
        self._remember(path, file)
        draft = file.with_name(file.name + ".tmp")
        _write_with_mtime_of(draft, file.stat(), text)
        draft.replace(file)

    def mmap(self, path: str, text: int) -> None:
        """Map the file, write to the mapping and keep it."""
        file = self._file(path)
        if path in self._mapped or not file.stat().st_size:
            raise FileExistsError(path)
        with open(file, "r+b", opener=_no_follow) as opened:
            self._mapped[path] = mmap.mmap(opened.fileno(), 0)
        self._write_mapped(path, text)

    def munmap(self, path: str, text: int) -> None:
        """Write to the mapping again, to a dirty page, which changes no time, and unmap: only that is an event."""
        if path not in self._mapped:
            raise FileNotFoundError(path)
        self._write_mapped(path, text)
        self._mapped.pop(path).close()

    def unmap_all(self) -> None:
        """Unmap all files: a mapping that stays open is an event only then."""
        while self._mapped:
            self._mapped.popitem()[1].close()

    def close_all(self) -> None:
        """Close all mappings and descriptors."""
        self.unmap_all()
        while self._open:
            os.close(self._open.popitem()[1][0])

    # -- open files that lost their name

    def link_tmpfile(self, folder: str, path: str, text: int) -> None:
        """Create a file without a name (O_TMPFILE), then link it; it stays open."""
        top, place = self._place(f"{folder}/f" if folder else "f").parent, self._place(path)
        if path in self._open:
            raise FileExistsError(path)
        fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o644)
        try:
            os.write(fd, _content(16, text))
            os.link(f"/proc/self/fd/{fd}", place, follow_symlinks=True)
        except OSError:
            os.close(fd)
            raise
        self._open[path] = fd, top

    def rotate(self, path: str, to: str) -> None:
        """Rename a log by `ln` and `rm`, as its writer still has it open."""
        file, target = self._file(path), self._place(to)
        if path in self._open:
            raise FileExistsError(path)
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.link(file, target)
        except OSError:
            os.close(fd)
            raise
        self._open[path] = fd, file.parent
        file.unlink()

    def write_unlinked(self, path: str, text: int) -> None:
        """Write to the open descriptor: the event names the removed name only. Note the file in `unreported`."""
        if path not in self._open:
            raise FileNotFoundError(path)
        fd, reported = self._open[path]
        os.lseek(fd, 0, os.SEEK_END)
        os.write(fd, _content(8, text))
        self._note_unreported(os.fstat(fd), reported)

    def close(self, path: str) -> None:
        """Close the descriptor: the event names the removed name only."""
        if path not in self._open:
            raise FileNotFoundError(path)
        os.close(self._open.pop(path)[0])

    def _note_unreported(self, written: os.stat_result, reported: Path) -> None:
        """Note the file's names; `OTHER_FOLDER` too if one is not in the folder that the event names."""
        for folder, _, names in os.walk(self.workspace):
            for name in names:
                place = Path(folder, name)
                if os.path.samestat(place.lstat(), written):
                    self.unreported.add(str(place.relative_to(self.workspace)))
                    if place.parent != reported:
                        self.unreported.add(OTHER_FOLDER)

    def _write_mapped(self, path: str, text: int) -> None:
        mapped = self._mapped[path]
        # A page beyond the end of a file that was truncated since must not be touched.
        size = min(8, mapped.size(), len(mapped))
        mapped[:size] = _content(size, text)

    def backdate(self, path: str) -> None:
        os.utime(self._file(path), (LONG_AGO_S, LONG_AGO_S))

    def touch(self, path: str) -> None:
        os.utime(self._file(path))

    # -- as editors save

    def replace(self, path: str, size: int, text: int) -> None:
        """Write a temporary file and rename it over the file."""
        place = self._place(path)
        self._remember(path, place)
        draft = place.with_name(place.name + ".tmp")
        _write(draft, _content(size, text))
        draft.replace(place)

    def backup(self, path: str, size: int, text: int) -> None:
        """Rename the file to `NAME~`, and write a new one."""
        file = self._file(path)
        file.rename(file.with_name(file.name + "~"))
        _write(file, _content(size, text))

    # -- names

    def rename(self, path: str, to: str) -> None:
        source, target = self._existing(path), self._place(to)
        if os.path.lexists(target):
            raise FileExistsError(to)
        source.rename(target)

    def rename_over(self, path: str, to: str) -> None:
        """Rename onto an existing file."""
        self._file(path).rename(self._file(to))

    def swap(self, path: str, other: str) -> None:
        """Exchange the names of two files: no size or time changes."""
        one, two = self._file(path), self._file(other)
        between = one.with_name("between")
        one.rename(between)
        two.rename(one)
        between.rename(two)

    def hard_link(self, path: str, to: str) -> None:
        os.link(self._file(path), self._place(to))

    def chmod(self, path: str, mode: int) -> None:
        place = self._existing(path)
        if not place.is_symlink():
            place.chmod(mode)

    def symlink(self, path: str, target: str) -> None:
        self._place(path).symlink_to(target)

    def symlink_loop(self, path: str, other: str) -> None:
        """Create two symlinks that lead to each other."""
        one, two = self._place(path), self._place(other)
        one.symlink_to(os.path.relpath(two, one.parent))
        two.symlink_to(os.path.relpath(one, two.parent))

    # -- trees

    def mkdir(self, path: str) -> None:
        self._place(path).mkdir()

    def remove(self, path: str) -> None:
        remove(self._existing(path))

    def recreate_folder(self, path: str, text: int) -> None:
        """Do `rm -rf`, then `mkdir` of the same name: many file systems give it the old one's inode number."""
        place = self._existing(path)
        if not place.is_dir() or place.is_symlink():
            raise NotADirectoryError(path)
        shutil.rmtree(place)
        place.mkdir()
        for number, name in enumerate(("f", "c/g", "c/e/f")):
            _write(place / name, _content(20 + number, text))

    def fill_folder(self, path: str, count: int) -> None:
        """Write so many small files."""
        place = self._place(path)
        place.mkdir(exist_ok=True)
        for number in range(count):
            _write(place / f"many{number}", b"one of many")

    def replace_workspace(self, count: int) -> None:
        """Recreate the workspace itself, with so many other files in it."""
        repository, aside = self.workspace / REPOSITORY, self._new_place()
        with contextlib.suppress(FileNotFoundError):
            repository.rename(aside)
        shutil.rmtree(self.workspace)
        self.workspace.mkdir()
        with contextlib.suppress(FileNotFoundError):
            aside.rename(repository)
        for number in range(count):
            _write(self.workspace / f"other{number}", b"of another workspace")

    def move_in(self, path: str, text: int) -> None:
        """Move a whole tree into the workspace."""
        place = self._place(path)
        if os.path.lexists(place):
            raise FileExistsError(path)
        self._tree(text).rename(place)

    def move_out(self, path: str) -> None:
        """Move a path out of the workspace."""
        self._existing(path).rename(self._new_place())

    def exchange_folder(self, path: str, text: int) -> None:
        """Move a folder out, and another one to its name."""
        place = self._existing(path)
        if not place.is_dir() or place.is_symlink():
            raise NotADirectoryError(path)
        tree = self._tree(text)
        place.rename(self._new_place())
        tree.rename(place)

    def change_kind(self, path: str, kind: str) -> None:
        """Replace the path by one of another kind."""
        place = self._existing(path)
        remove(place)
        match kind:
            case "file":
                _write(place, b"was something else")
            case "folder":
                place.mkdir()
                _write(place / "f", b"in what was something else")
            case "link":
                place.symlink_to("f")
            case "fifo":
                os.mkfifo(place)

    # -- content that must not be uploaded

    def link_outside(self, path: str) -> None:
        """Replace a folder or file by a symlink to one outside with the same names."""
        place = self._existing(path)
        target = self._outside if place.is_dir() else self._outside / "f"
        place.rename(self._new_place())
        place.symlink_to(target)

    def write_secret(self, folder: str, name: str) -> None:
        _write(self._place(f"{folder}/{name}" if folder else name), SECRET)

    def write_ignored(self, folder: str, number: int) -> None:
        """Write a rule, then a file that it ignores."""
        rules = self.workspace / ".syncdignore"
        text = rules.read_text() if rules.is_file() else ""
        if IGNORE_RULE not in text:
            _write(rules, (text + IGNORE_RULE).encode())
        self._has_ignored = True
        _write(self._place(f"{folder}/ignored{number}" if folder else f"ignored{number}"), IGNORED)

    def write_rules(self, path: str, text: str) -> None:
        """Write an ignore file."""
        if self._has_ignored and path == ".syncdignore":
            text += IGNORE_RULE
        _write(self._place(path), text.encode())

    # --

    def _remember(self, path: str, place: Path) -> None:
        try:
            self._before[path] = place.read_bytes() if place.is_file() and not place.is_symlink() else None
        except OSError:
            self._before[path] = None

    def _new_place(self) -> Path:
        self._count += 1
        return self._beside / str(self._count)

    def _tree(self, text: int) -> Path:
        tree = self._new_place()
        for number, path in enumerate(("f", "c/g", "c/e/f")):
            _write(tree / path, _content(20 + number, text))
        return tree


class SandboxAgent(_Side):
    """The agent's operations in a sandbox, on the paths that a scenario names. Its files have contents of their own.

    One that does not fit raises `OSError` and changes little or nothing.
    """

    def __init__(self, workspace: Path) -> None:
        super().__init__(workspace)
        self._agent = Agent(workspace)

    def agent_writes(self, path: str, text: int) -> None:
        """Write the whole file and the folders above it; a link is replaced."""
        self._place(path)
        self._agent.write(path, b"agent %d" % text, 0o644)

    def agent_prepends(self, path: str, text: int) -> None:
        """Write one line more before the file's first."""
        self._agent.write(path, b"agent %d\n" % text + self._file(path).read_bytes())

    def agent_edits_alike(self, path: str, text: int) -> None:
        """Overwrite a file by other bytes of the same size, and set its mtime back."""
        size, word = self._file(path).stat().st_size, b"agent%x-" % text
        self._agent.write_with_old_mtime(path, (word * (size // len(word) + 1))[:size])

    def agent_chmod(self, path: str) -> None:
        """Make a file executable, or no more."""
        file = self._file(path)
        file.chmod(file.stat().st_mode ^ 0o100)

    def agent_links(self, path: str, target: str) -> None:
        """Put a symlink there, in the place of what is there, a whole folder too."""
        self._place(path)
        self._agent.symlink(path, target)

    def agent_makes_folder(self, path: str, text: int) -> None:
        """Put a folder with a file in it there, in the place of a file or link."""
        place = self._place(path)
        if os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
            place.unlink()
        self.agent_writes(f"{path}/agents", text)

    def agent_removes(self, path: str) -> None:
        """Remove a file or a whole tree."""
        remove(self._existing(path))

    def agent_empties(self) -> None:
        """Remove everything, as `rm -rf *` does: the repository stays."""
        for place in self.workspace.iterdir():
            if place.name != REPOSITORY:
                remove(place)

    def agent_commits(self, how: str, text: int) -> None:
        """Commit, amend, switch the branch and so on: see `git.commit`. It may change files."""
        before = {path: path.lstat() for path in self.workspace.rglob("*") if REPOSITORY not in path.parts}
        try:
            commit(self.workspace, how, text)
        finally:
            for path, was in before.items():
                now = path.lstat() if path.is_file() and not path.is_symlink() else was
                if now.st_mtime_ns != was.st_mtime_ns and int(now.st_mtime) == int(was.st_mtime):
                    os.utime(path, (now.st_atime, now.st_mtime + 1))


AGENT_STEPS = frozenset(name for name in vars(SandboxAgent) if name.startswith("agent_"))
"""The steps that change the sandbox as its agent would."""


def _inside(top: Path, path: str) -> Path:
    place = top
    for name in path.split("/")[:-1]:
        place /= name
        if place.is_symlink():
            raise NotADirectoryError(path)
    return place / path.rpartition("/")[2]


def _write(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(
        os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644), "wb"
    ) as file:
        file.write(content)


def _write_with_mtime_of(place: Path, before: os.stat_result, text: int) -> None:
    _write(place, _content(before.st_size, text))
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _content(size: int, text: int) -> bytes:
    """Return so many bytes; each eight of them differ from those of any other text."""
    word = b"%07x\n" % text
    return (word * (size // 8 + 1))[:size]


def remove(place: Path) -> None:
    """Remove a file or a whole tree."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def tree(top: Path) -> Tree:
    """Return each path with what a sandbox keeps of it; special files and git's are skipped."""
    return trees.tree(top, REPOSITORY)


def is_symlink_loop(top: Path, path: str) -> bool:
    """True if the symlink leads back to itself, and its target as written is not outside `top`."""
    target = os.readlink(top / path)
    if target.startswith("/") or os.path.normpath(os.path.join(os.path.dirname(path), target)).startswith(".."):
        return False
    try:
        os.stat(top / path)
    except OSError as failure:
        return failure.errno == errno.ELOOP
    return False


def damage(top: Path, where: str, how: str, number: int) -> None:
    """Damage one file below `top`, which is the "spool" or the "state". Raises `OSError`."""
    # What SQLite maps into memory is no content: it is made anew, and whoever cuts it ends the process that maps it.
    files = sorted(
        path for path in top.rglob("*") if path.is_file() and path.name != "lock" and path.suffix != ".db-shm"
    )
    if not files:
        return
    file = files[number % len(files)]
    content = bytearray(file.read_bytes())
    match how:
        case "flip" if content:
            content[(number * 997) % len(content)] ^= 4
            file.write_bytes(content)
        case "cut":
            os.truncate(file, len(content) // 2)
        case "drop":
            file.unlink()
        case "foreign":
            file.write_bytes(b"something else\n" * 20)
        case "folder" if where == "spool":
            file.unlink()
            file.mkdir()
        case "empty" if where == "spool":
            shutil.rmtree(top)
