"""What people and programs do to a workspace, one deed a method, on paths that a story names.

A deed that does not fit (its file is gone, its name is taken) raises `OSError` and changes little or nothing: so a
story stays a story when some of its lines are left out. No deed goes through a symlink, or the story itself would bring
in what lies outside. Three marks are never to leave: `SECRET` is only in files whose names the rules call secret,
`OUTSIDE` only outside of the workspace, `HUSHED` only in files that an ignore file named before they were written.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import tempfile
from pathlib import Path

SECRET = b"SECRET-that-stays-home"
OUTSIDE = b"OUTSIDE-of-the-workspace"
HUSHED = b"HUSHED-by-a-rule-before-it-was"
MARKS = (SECRET, OUTSIDE, HUSHED)
HUSH = "hushed*\n"
ELSEWHERE = "\0"
"""In `Hand.hidden`: only a look at everything finds it."""
LONG_AGO_S = 1_000_000_000
_TRIES = 20


class Hand:
    """Does deeds to one workspace, with two folders beside it: one to bring things from, one that is not its own."""

    def __init__(self, workspace: Path, beside: Path) -> None:
        self.workspace = workspace
        self._beside = beside / "beside"
        self._outside = beside / "outside"
        self._count = 0
        self._hushed = False
        self._before: dict[str, bytes | None] = {}
        self._mapped: dict[str, mmap.mmap] = {}
        self._open: dict[str, tuple[int, Path]] = {}
        self.hidden: set[str] = set()  # see `write_on`
        self._beside.mkdir(exist_ok=True)
        self._outside.mkdir(exist_ok=True)
        for name in ("f", "g"):
            (self._outside / name).write_bytes(OUTSIDE)

    # -- contents

    def write(self, path: str, size: int, text: int) -> None:
        """Over what was in the file, with the folders above it."""
        place = self._place(path)
        self._remember(path, place)
        _write(place, _content(size, text))

    def revert(self, path: str) -> None:
        """What was written last is taken back."""
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

    def poke(self, path: str, text: int) -> None:
        """Some bytes in the middle, the size kept."""
        file = self._file(path)
        with file.open("r+b") as opened:
            opened.seek(file.stat().st_size // 2)
            opened.write(_content(min(8, file.stat().st_size // 2), text))

    def forge(self, path: str, text: int) -> None:
        """Other bytes under the same size and the same time of change."""
        file = self._file(path)
        self._remember(path, file)
        before = file.stat()
        _write(file, _content(before.st_size, text))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def recreate(self, path: str, text: int) -> None:
        """`rm`, then `cp -p`: a new file of the same size and time of change, by the old one's inode number maybe."""
        file = self._file(path)
        self._remember(path, file)
        before = file.stat()
        file.unlink()
        _write_alike(file, before, text)

    def replace_alike(self, path: str, text: int) -> None:
        """`cp -p` to a name beside it, and `mv` over it."""
        file = self._file(path)
        self._remember(path, file)
        draft = file.with_name(file.name + ".tmp")
        _write_alike(draft, file.stat(), text)
        draft.replace(file)

    def map(self, path: str, text: int) -> None:
        """Write through a mapping, which stays."""
        file = self._file(path)
        if path in self._mapped or not file.stat().st_size:
            raise FileExistsError(path)
        with open(file, "r+b", opener=_unfollowed) as opened:
            self._mapped[path] = mmap.mmap(opened.fileno(), 0)
        self._write_mapped(path, text)

    def unmap(self, path: str, text: int) -> None:
        """Write once more, to a page that is dirty already, which moves no time; only the closing is an event."""
        if path not in self._mapped:
            raise FileNotFoundError(path)
        self._write_mapped(path, text)
        self._mapped.pop(path).close()

    def let_go(self) -> None:
        """Close what is mapped or open."""
        while self._mapped:
            self._mapped.popitem()[1].close()
        while self._open:
            os.close(self._open.popitem()[1][0])

    # -- files whose name is gone

    def nameless(self, folder: str, path: str, text: int) -> None:
        """A file that is made without a name gets one; it stays open."""
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
        """A log gets another name by `ln` and `rm`; who writes to it has it open still."""
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

    def write_on(self, path: str, text: int) -> None:
        """Through the descriptor, of which only the name that is gone is told. `hidden` is where it was done."""
        if path not in self._open:
            raise FileNotFoundError(path)
        fd, told = self._open[path]
        os.lseek(fd, 0, os.SEEK_END)
        os.write(fd, _content(8, text))
        self._hide(os.fstat(fd), told)

    def close(self, path: str) -> None:
        """Which is told in the same way."""
        if path not in self._open:
            raise FileNotFoundError(path)
        os.close(self._open.pop(path)[0])

    def _hide(self, written: os.stat_result, told: Path) -> None:
        """Note the file's name; "elsewhere" too, if it has none in the folder by which it is told of."""
        for folder, _, names in os.walk(self.workspace):
            for name in names:
                place = Path(folder, name)
                if os.path.samestat(place.lstat(), written):
                    self.hidden.add(str(place.relative_to(self.workspace)))
                    if place.parent != told:
                        self.hidden.add(ELSEWHERE)

    def _write_mapped(self, path: str, text: int) -> None:
        mapped = self._mapped[path]
        # What is beyond the file's end, should it have been cut since, must not be touched.
        size = min(8, mapped.size(), len(mapped))
        mapped[:size] = _content(size, text)

    def backdate(self, path: str) -> None:
        os.utime(self._file(path), (LONG_AGO_S, LONG_AGO_S))

    def touch(self, path: str) -> None:
        os.utime(self._file(path))

    # -- how editors save

    def replace(self, path: str, size: int, text: int) -> None:
        """A new file beside it takes its place."""
        place = self._place(path)
        self._remember(path, place)
        draft = place.with_name(place.name + ".tmp")
        _write(draft, _content(size, text))
        draft.replace(place)

    def backup(self, path: str, size: int, text: int) -> None:
        """The old one steps aside to `NAME~`, a new one is written."""
        file = self._file(path)
        file.rename(file.with_name(file.name + "~"))
        _write(file, _content(size, text))

    # -- names

    def rename(self, path: str, to: str) -> None:
        source, target = self._there(path), self._place(to)
        if os.path.lexists(target):
            raise FileExistsError(to)
        source.rename(target)

    def over(self, path: str, to: str) -> None:
        """A rename onto a file that is there."""
        self._file(path).rename(self._file(to))

    def swap(self, path: str, other: str) -> None:
        """Two files change names: no size or time says so."""
        one, two = self._file(path), self._file(other)
        between = one.with_name("between")
        one.rename(between)
        two.rename(one)
        between.rename(two)

    def hard(self, path: str, to: str) -> None:
        """A second name."""
        os.link(self._file(path), self._place(to))

    def chmod(self, path: str, mode: int) -> None:
        there = self._there(path)
        if not there.is_symlink():
            there.chmod(mode)

    def link(self, path: str, target: str) -> None:
        self._place(path).symlink_to(target)

    def circle(self, path: str, other: str) -> None:
        """Two links, each of which leads to the other."""
        one, two = self._place(path), self._place(other)
        one.symlink_to(os.path.relpath(two, one.parent))
        two.symlink_to(os.path.relpath(one, two.parent))

    # -- trees

    def mkdir(self, path: str) -> None:
        self._place(path).mkdir()

    def remove(self, path: str) -> None:
        _remove(self._there(path))

    def remake(self, path: str, text: int) -> None:
        """`rm -rf`, and a new folder of that name at once: many file systems give it the old one's inode number."""
        place = self._there(path)
        if not place.is_dir() or place.is_symlink():
            raise NotADirectoryError(path)
        shutil.rmtree(place)
        place.mkdir()
        for number, name in enumerate(("f", "c/g", "c/e/f")):
            _write(place / name, _content(20 + number, text))

    def fill(self, path: str, count: int) -> None:
        """So many small files."""
        place = self._place(path)
        place.mkdir(exist_ok=True)
        for number in range(count):
            _write(place / f"many{number}", b"one of many")

    def renew(self, count: int) -> None:
        """The same with the workspace itself, with so many other files in it."""
        shutil.rmtree(self.workspace)
        self.workspace.mkdir()
        for number in range(count):
            _write(self.workspace / f"other{number}", b"of another workspace")

    def bring(self, path: str, text: int) -> None:
        """A whole tree moves in."""
        place = self._place(path)
        if os.path.lexists(place):
            raise FileExistsError(path)
        self._tree(text).rename(place)

    def take(self, path: str) -> None:
        """Something moves out."""
        self._there(path).rename(self._fresh())

    def exchange(self, path: str, text: int) -> None:
        """A folder moves out, and another one takes its name."""
        place = self._there(path)
        if not place.is_dir() or place.is_symlink():
            raise NotADirectoryError(path)
        tree = self._tree(text)
        place.rename(self._fresh())
        tree.rename(place)

    def morph(self, path: str, kind: str) -> None:
        """Something of another kind takes the name."""
        place = self._there(path)
        _remove(place)
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

    # -- what must not leave

    def trap(self, path: str) -> None:
        """A folder, or a file, becomes a way out, to things of the same names."""
        place = self._there(path)
        target = self._outside if place.is_dir() else self._outside / "f"
        place.rename(self._fresh())
        place.symlink_to(target)

    def secret(self, folder: str, name: str) -> None:
        _write(self._place(f"{folder}/{name}" if folder else name), SECRET)

    def hush(self, folder: str, number: int) -> None:
        """A rule, and only then what it is about."""
        rules = self.workspace / ".syncdignore"
        text = rules.read_text() if rules.is_file() else ""
        if HUSH not in text:
            _write(rules, (text + HUSH).encode())
        self._hushed = True
        _write(self._place(f"{folder}/hushed{number}" if folder else f"hushed{number}"), HUSHED)

    def rules(self, path: str, text: str) -> None:
        """An ignore file appears or changes."""
        if self._hushed and path == ".syncdignore":
            text += HUSH
        _write(self._place(path), text.encode())

    # --

    def _place(self, path: str) -> Path:
        """Where something may be put, the folders above it made."""
        place = self._inside(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def _there(self, path: str) -> Path:
        place = self._inside(path)
        place.lstat()
        return place

    def _file(self, path: str) -> Path:
        place = self._inside(path)
        if not stat.S_ISREG(place.lstat().st_mode):
            raise IsADirectoryError(path)
        return place

    def _inside(self, path: str) -> Path:
        return _inside(self.workspace, path)

    def _remember(self, path: str, place: Path) -> None:
        try:
            self._before[path] = place.read_bytes() if place.is_file() and not place.is_symlink() else None
        except OSError:
            self._before[path] = None

    def _fresh(self) -> Path:
        self._count += 1
        return self._beside / str(self._count)

    def _tree(self, text: int) -> Path:
        tree = self._fresh()
        for number, path in enumerate(("f", "c/g", "c/e/f")):
            _write(tree / path, _content(20 + number, text))
        return tree


class Agent:
    """Does deeds in a sandbox's workspace. What it writes nobody else does."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    def write(self, path: str, text: int) -> bytes:
        """Over what was in the file, with the folders above it; what was written."""
        place, content = _inside(self._workspace, path), b"agent %d" % text
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():
            place.unlink()
        _write(place, content)
        place.chmod(0o644)
        return content

    def remove(self, path: str) -> None:
        """A file or a whole tree."""
        place = _inside(self._workspace, path)
        place.lstat()
        _remove(place)


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


def _write_alike(place: Path, before: os.stat_result, text: int) -> None:
    _write(place, _content(before.st_size, text))
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))


def _unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _content(size: int, text: int) -> bytes:
    """That many bytes, which differ for each text in every eight of them."""
    word = b"%07x\n" % text
    return (word * (size // 8 + 1))[:size]


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()


Tree = dict[str, tuple[object, ...]]


def tree(top: Path) -> Tree:
    """Path to what a sandbox keeps of it; what is no file, folder or link is passed over."""
    found: Tree = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(top / folder) as listing:
            for item in listing:
                path = f"{folder}/{item.name}" if folder else item.name
                if item.is_symlink():
                    found[path] = ("link", os.readlink(item.path))
                elif item.is_dir():
                    found[path] = ("folder",)
                    folders.append(path)
                elif item.is_file():
                    with open(item.path, "rb") as file:
                        found[path] = ("file", bool(item.stat().st_mode & 0o100), file.read())
    return found


def leads_in_a_circle(top: Path, path: str) -> bool:
    """Whether the link there, which by its text does not leave `top`, leads to itself in the end."""
    target = os.readlink(top / path)
    if target.startswith("/") or os.path.normpath(os.path.join(os.path.dirname(path), target)).startswith(".."):
        return False
    try:
        os.stat(top / path)
    except OSError as failure:
        return failure.errno == errno.ELOOP
    return False


def gives_numbers_again(folder: Path) -> bool:
    """Whether the file system gives a new folder the inode number of one that was removed."""
    numbers = set()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for _ in range(_TRIES):
            place = Path(name) / "folder"
            place.mkdir()
            numbers.add(place.stat().st_ino)
            place.rmdir()
    return len(numbers) < _TRIES
