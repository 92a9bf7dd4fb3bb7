"""Compares the gitignore rules with git itself: a scan, and what `explain` says, with git in the same workspace."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from syncd.model.entry import Kind
from syncd.scan.exclusions import explain
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
from tests.repositories import git

needs_git = pytest.mark.skipif(
    shutil.which("git") is None, reason="git, which these tests compare with, is not installed"
)
pytestmark = needs_git

# Names that syncd's own defaults exclude cannot be compared, and are not used here.
PLAIN = Selection(upload_secrets=True)
Verdict = tuple[str, str, str]  # file, line and pattern that decide; three times "" if none does


def write(workspace: Path, files: dict[bytes, bytes]) -> None:
    """Write the files that can be written; a name that is already a directory, or below a file, is skipped."""
    for name, data in files.items():
        full = os.fsencode(workspace) + b"/" + name
        try:
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as file:
                file.write(data)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            pass


# A first `**` right after a name: up to git 2.52 it spans directories, which syncd keeps to; later it is one `*`.
_AFTER_NAME = re.compile(r"[!/]*[^*?\[\\\n]*[^*?\[\\/\n]\*\*")


@cache
def spans_after_name() -> bool:
    """Return True if the installed git is one whose `**` spans directories after a name, too."""
    version = re.search(r"(\d+)\.(\d+)", git(Path.cwd(), "version"))
    return version is not None and (int(version[1]), int(version[2])) < (2, 53)


def can_be_compared(pattern: str) -> bool:
    return spans_after_name() or _AFTER_NAME.match(pattern) is None


def sent(workspace: Path, selection: Selection = PLAIN) -> set[str]:
    manifest = Scanner(str(workspace), selection).scan().manifest
    return {path for path, entry in manifest.items() if entry.kind is not Kind.DIRECTORY}


def decided(workspace: Path, path: str) -> Verdict:
    found = explain(str(workspace), PLAIN, path)
    # Of what comes back with its folder, git names no line.
    rule = None if found.included and found.at != path else found.rule
    return ("", "", "") if rule is None else (rule.source, str(rule.line), rule.pattern)


def verdicts_of_git(workspace: Path, paths: Iterable[str]) -> dict[str, Verdict]:
    asked = b"".join(os.fsencode(path) + b"\0" for path in paths)
    arguments = ("check-ignore", "-v", "-n", "-z", "--no-index", "--stdin")
    fields = git(workspace, *arguments, given=asked, codes=(0, 1)).split("\0")
    return {fields[i + 3]: (fields[i], fields[i + 1], fields[i + 2]) for i in range(0, len(fields) - 3, 4)}


def all_files(workspace: Path) -> list[str]:
    found = []
    for directory, below, names in os.walk(workspace):
        if ".git" in below:
            below.remove(".git")
        found += [os.path.relpath(os.path.join(directory, name), workspace) for name in names]
    return found


def in_own_terms(workspace: Path, top: Path, action: Verdict, common: Path) -> Verdict:
    """Name git's file as syncd does, relative to the workspace; git's is relative to the top, or its exclude file."""
    source, line, pattern = action
    if not source:
        return action
    path = common / "info/exclude" if source.endswith("info/exclude") else top / source
    return (str(path.relative_to(workspace)) if path.is_relative_to(workspace) else str(path)), line, pattern


def disagreements(workspace: Path, common: Path) -> list[str]:
    """Return the differences between syncd and git, about inclusion or the line that decides."""
    listed = git(workspace, "ls-files", "-co", "--exclude-standard", "-z")
    theirs, ours = set(listed.split("\0")) - {""}, sent(workspace)
    top = Path(git(workspace, "rev-parse", "--show-toplevel").rstrip("\n"))
    wrong = [f"{'only git' if path in theirs else 'only syncd'} includes {path!r}" for path in sorted(theirs ^ ours)]
    for path, action in verdicts_of_git(workspace, all_files(workspace)).items():
        mine, git_says = decided(workspace, path), in_own_terms(workspace, top, action, common)
        if mine != git_says:
            wrong.append(f"{path!r}: git decides by {git_says}, syncd by {mine}")
    return wrong


# One ignore file each, and names that show how it is understood.
SINGLE: list[tuple[bytes, str]] = [
    (b"*.log\n!keep.log\n", "a.log keep.log d/keep.log d/b.log log .log"),
    (b"/a\n", "a d/a"),
    (b"a/\n", "a/x d/a/x e/a"),
    (b"/a\n!a\n/*.b\n!*.b\n/c?d\n!c?d\n", "a d/a x.b d/x.b c1d d/c1d"),
    (b"!a\n/a\n!*.b\n/*.b\n!c?d\n/c?d\n", "a d/a x.b d/x.b c1d d/c1d"),
    (b"d/*\n!d/k/\n", "d/x d/k/y d/j/z"),
    (b"d\n!d/k\n", "d/k d/x e/d/k"),
    (b"**/x/**\n", "x/a b/x/c q/x"),
    (b"a/**/b\n", "a/b a/c/b a/c/d/b c/a/b ab a/xb"),
    (b"a/**/**/b\n", "a/b a/c/b a/c/d/b ab"),
    (b"**\n", "a b/c"),
    (b"**/\n", "a b/c"),
    (b"/**\n!/a\n", "a b/c"),
    (b"**/a\n", "a b/a c/d/a ba"),
    (b"a/**\n!a/x\n!a/d/\n", "a/x a/y a/d/z"),
    (b"foo/**/\n", "foo/a foo/b/c foo/b/d/e"),
    (b"tail/**/\n!tail/b/\n", "tail/a tail/b/c tail/c/d"),
    (b"x**y\n", "xy x1y x/y x1/2y"),
    (b"d/x**y\n", "d/xy d/x1y d/x/y d/x1/2y"),
    (b"d/x**\n!d/x*/\n", "d/x d/xa d/x1/a d/x1/b/c"),
    (b"d/x**/b\n", "d/xb d/x/b d/xq/b d/xq/r/b d/xqb"),
    (b"d/x**/**/b\n", "d/xb d/x/b d/xq/b d/xq/r/b d/xqb"),
    (b"d/x**/c**/b\n", "d/xc/b d/x/c/b d/x/cc/b d/xq/cr/b d/xcb"),
    (b"d/?**/b\n", "d/xb d/x/b d/xq/b d/xq/r/b"),
    (b"**\\/b\n", "b a/b a/c/b"),
    (b"?/*/c\n", "a/c a/b/c a/b/d/c ab/b/c"),
    (b"?/**\\/b\n", "a/b a/c/b a/c/d/b ab/c/b b"),
    (b"a/**\\/b\n", "a/b a/c/b a/c/d/b"),
    (b"d/x**\\/b\n", "d/xb d/x/b d/xq/b d/xq/r/b"),
    (b"d/x**//\n", "d/x/y d/xa/b d/x1"),
    (b"a\\/b\n", "a/b c/a/b"),
    (b"\\/a\n", "a b/a"),
    (b"//a\na//b\nc//\n", "a a/b c/d"),
    (b"foo\\ \n", "foo\u00a0 foo"),
    (b"foo  \nbar\\  \n", "foo bar"),
    (b"tab\t\nboth \t\n", "tab tab\t both"),
    (b"\\#x\n#y\n", "#x #y y"),
    (b"\\!x\n!y\n!!z\n", "!x y x !z z"),
    (b"!\n/\n!/\n//\n\n", "a d/b"),
    (b"*\n!*/\n!*.py\n", "a.py b.c d/e.py d/f.c"),
    (b"[ab].t\n[!c].u\n[^d].v\n", "a.t c.t c.u x.u d.v e.v !.u ^.v"),
    (b"[[:digit:]]n\n[[:upper:][:digit:]]m\n[![:alpha:]]o\n", "1n an Am 1m am ao 1o"),
    (b"[[:nonsense:]]a\n[[:alpha:]b\n[[:]c\n[[:alpha]d\n", "xa xb :b :c [c :d [d ad"),
    (b"[[:::]]a\n[[::]]b\n[[:a]c\n", "xa :a :]a xb :]b []b [c ac :c"),
    (b"[]]a\n[!]]b\n[^]]c\n[]-z]d\na[]]b\n", "]a ]b xb ]c xc ad ]d a]b ab"),
    (b"[a-]x\n[-a]y\n[a--]z\n[--a]w\n", "ax -x -y ay az -z -w .w"),
    (b"[c-a]x\n[a-c-e]y\n[a\\-c]z\n[\\]]w\n[a-\\c]v\n", "bx ax cx dy -y ey bz -z az ]w \\w bv"),
    (b"[a/b]x\nd[/]e\nd[!a]e\n", "ax d/e dze [a/b]x"),
    (b"[\nq[\n[]\n[!\n[^]\n[a\n[a-\n[\\\n", "[ q[ [] [! a [a"),
    (b"a*/b\n", "ax/b a/b ax/c/b z/ax/b"),
    (b"*/\n!k/\n", "a d/b k/c k/l/m"),
    (b"*/*\n!*/k\n", "a d/x d/k d/e/f"),
    (b"?\n", "x xy d/y \u00e9 /"),
    (b"??\n", "x xy \u00e9 \u20ac"),
    ("\u00e9*\n[\u00e9]x\n".encode(), "\u00e9a \u00e8a \u00e9x"),
    (b"\xff*\n[\xfe]\n", "\udcff1 \udcfe1 \udcfe"),
    (b"\t\n x\n", "x"),
    (b"a\\\nb\\\\\n\\c\nd\\*\n", "a a\\ b b\\ c \\c d* dd"),
    (b"\r\n*.tmp\r\n!keep.tmp\r\nlast\r", "a.tmp keep.tmp b last"),
    (b"\xef\xbb\xbfbom\n\xef\xbb\xbfsecond\n", "bom second"),
    (b"cut\0off\n\0\n*.c\n", "cut cutoff a.c"),
    (b"no-newline", "no-newline d/no-newline"),
    (b"mid/anchored\nrooted/dir/\n", "mid/anchored q/mid/anchored rooted/dir/f q/rooted/dir/f"),
    (b"deep/**\n!deep/kept.txt\n", "deep/kept.txt deep/x deep/d/kept.txt"),
    (b"*.log\n", "A.LOG a.log a.log.txt"),
    (b"*\\.a\n*[.]b\n\\*.c\n*.d*\n", "x.a x.b *.c x.c x.d x.dd"),
    (b"*a*a*a*a*a*a*a*a*b\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac aaaaaaaaaaaab"),
    (b"*.[oa]\n*.so.*\nlib*.a\n", "x.o x.a x.so x.so.1 libx.a lib.a"),
    (b"[[:digit:]-z]a\n[x[:digit:]y]b\n[[:]:]]c\n[[:digit:]d\n", "5a -a za aa xb 5b db [:]c ::]c [c 5d dd"),
    (b"a/x**\\/b\na/?/**\\/b\n", "a/x1/b a/x/y/b a/xb a/y/b a/b"),
    (b"a\\\\ \nb\\\\\\  \n", "a\\ a b\\ b"),
    (b"**/a/**/a/b/**/c\n", "a/a/b/c a/x/a/b/y/c a/b/c a/b/a/b/c a/a/b/a/b/x/c a/a/c"),
    (b"/x/**/y/*/**/z/*.q\n", "x/y/z/1.q x/y/1/z/1.q x/y/y/z/1.q x/1/y/2/3/z/1.q x/y/1/z/2/z/1.q q/x/y/1/z/1.q"),
    (b"a/*/c\na/b/**/d/*.e\n", "a/c a/b/c a/b/c/c a/b/d/x.e a/b/q/d/y.e a/b/q/d/z/y.e"),
]


def test_single_files_agree_with_git(tmp_path: Path) -> None:
    """Each difficult ignore file, in its own directory, gives the same results as in git, line for line."""
    for number, (data, names) in enumerate(SINGLE):
        if not all(map(can_be_compared, data.decode("latin-1").splitlines())):
            continue
        directory = b"s%03d/" % number
        write(tmp_path, {directory + b".gitignore": data})
        write(tmp_path, {directory + os.fsencode(name): b"" for name in names.split(" ")})
    git(tmp_path, "init", "-q")
    assert disagreements(tmp_path, tmp_path / ".git") == []


def test_names_that_a_table_cannot_hold(tmp_path: Path) -> None:
    """Names with trailing spaces, newlines and tabs are distinguished as in git."""
    names = [
        b"foo",
        b"foo ",
        b"foo  ",
        b"bar ",
        b"bar  ",
        b"new\nline",
        b"other\nline",
        b"d\n/x",
        b"n\nl/e1/x",
        b"d\n/y",
        b" x",
        b"\t",
    ]
    write(tmp_path, dict.fromkeys(names, b""))
    write(tmp_path, {b".gitignore": b"foo\\ \nbar\\ \\ \nnew?line\n**/d?/x\n**/e?/x\n x\n\t\n"})
    git(tmp_path, "init", "-q")
    assert disagreements(tmp_path, tmp_path / ".git") == []


@pytest.mark.parametrize("pattern", ["[[:{0}:]]", "[![:{0}:]]"])
def test_character_classes_hold_the_same_bytes_as_in_git(tmp_path: Path, pattern: str) -> None:
    """All twelve classes match the same bytes as in git, for every byte that a name may hold."""
    classes = "alnum alpha blank cntrl digit graph lower print punct space upper xdigit"
    for name in classes.split(" "):
        write(tmp_path, {f"{name}/.gitignore".encode(): pattern.format(name).encode() + b"x\n"})
        write(tmp_path, {name.encode() + b"/" + bytes([code]) + b"x": b"" for code in range(1, 256) if code != 0x2F})
    git(tmp_path, "init", "-q")
    assert disagreements(tmp_path, tmp_path / ".git") == []


def test_nested_files_and_exclude_files_agree_with_git(tmp_path: Path) -> None:
    """A deeper file wins over a shallower one, both over .git/info/exclude; an excluded folder stays excluded."""
    git(tmp_path, "init", "-q")
    exclude = b"*.excluded\nby-exclude/\n!*.log\n"
    write(
        tmp_path,
        {
            b".git/info/exclude": exclude,
            b".gitignore": b"*.log\n!important.log\nnegdir/\n!negdir/inside.txt\n!back.excluded\nsub/anch2\n",
            b"sub/.gitignore": b"*.txt\n!yes.txt\n/anch\n!*.log\nx/y\n",
            b"sub/deeper/.gitignore": b"*\n!.gitignore\n!*.py\n",
            b"negdir/.gitignore": b"!*\n",
            b"by-exclude/.gitignore": b"!*\n",
        },
    )
    paths = """a.log important.log sub/b.log sub/no.txt sub/yes.txt sub/anch sub/x/anch sub/x/y sub/q/x/y sub/anch2
        sub/deeper/m.py sub/deeper/m.c sub/deeper/d/n.py sub/deeper/yes.txt negdir/inside.txt negdir/other
        by-exclude/x a.excluded back.excluded sub/back.excluded"""
    write(tmp_path, dict.fromkeys(paths.encode().split(), b""))
    assert disagreements(tmp_path, tmp_path / ".git") == []


WILDS = ["*", "*", "*", "**", "**", "?", "[ab]", "[!a]", "[^b]", "[a-c]", "[]a]", "[a\\]b]", "[[:digit:]]", "[/a]", "["]
ESCAPES = ["\\a", "\\*", "\\/", "\\", "\\ ", "\\#", "\\[", "\\\\"]
LETTERS = [*"aaabbbccx1.-", "]", "^", "!", "#", " ", "é", "\udcff", "ab", "a.b"]


def random_pattern(random_source: random.Random) -> str:
    """Return a pattern that this git can be asked about."""
    return next(filter(can_be_compared, iter(lambda: any_pattern(random_source), None)))


def any_pattern(random_source: random.Random) -> str:
    components = []
    for _ in range(random_source.choice([1, 1, 2, 2, 3])):
        pieces = [
            random_source.choice(random_source.choices([LETTERS, WILDS, ESCAPES], [12, 5, 1])[0])
            for _ in range(random_source.randint(1, 3))
        ]
        components.append(random_source.choices(["".join(pieces), "**", "*", ""], [14, 3, 1, 0.2])[0])
    front = random_source.choices(["", "/", "!", "!/", "**/", "#", " "], [10, 3, 4, 1, 2, 0.2, 0.2])[0]
    back = random_source.choices(["", "/", "/**", "/*", " ", "\t", "\r", "//"], [12, 4, 2, 2, 0.5, 0.2, 0.5, 0.2])[0]
    return front + "/".join(components) + back


def name_like(random_source: random.Random, pattern: str) -> str:
    """Return a path that the pattern is likely to match."""
    body = pattern.strip("!/ \t\r").replace("\\", "", random_source.randint(0, 3))
    deep = ["", "a", "a/b", "x/a/b", "/", "b/"]
    for wild, fills in (("**/", ["", "a/", "a/b/"]), ("**", deep), ("*", ["", "a", "bc"]), ("?", ["a", "1"])):
        while wild in body:
            body = body.replace(wild, random_source.choice(fills), 1)
    for wild in ("[ab]", "[!a]", "[^b]", "[a-c]", "[]a]", "[a]b]", "[/a]", "[[:digit:]]"):
        body = body.replace(wild, random_source.choice("abc1]"))
    body = (
        random_source.choice(["", "", "", "a/", "q/b/"]) + body + random_source.choice(["", "", "", "/a", "/b/c", "c"])
    )
    components = [part for part in body.split("/") if part not in ("", ".", "..")]
    return "/".join(components)


def write_random_case(random_source: random.Random, workspace: Path, directory: str) -> None:
    """Write a directory with ignore files of random patterns, and names that are likely to match them."""
    patterns = [random_pattern(random_source) for _ in range(random_source.randint(1, 6))]
    names = [name_like(random_source, random_source.choice(patterns)) for _ in range(14)]
    bare = PLAIN.root()
    names = [
        name for name in names if name and all(bare.decide(part, is_dir=True).included for part in name.split("/"))
    ]
    ignore = {"": patterns}
    inner = sorted({name.rpartition("/")[0] for name in names if "/" in name})
    if inner and random_source.random() < 0.4:
        ignore[random_source.choice(inner) + "/"] = [
            random_pattern(random_source) for _ in range(random_source.randint(1, 3))
        ]
    write(workspace, {os.fsencode(f"{directory}/{name}"): b"" for name in names})
    for where, lines in ignore.items():
        write(workspace, {os.fsencode(f"{directory}/{where}.gitignore"): os.fsencode("\n".join(lines))})


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 9))])
def test_random_files_agree_with_git(tmp_path: Path, seed: int) -> None:
    """Hundreds of random ignore files give the same results as in git, line for line."""
    random_source = random.Random(seed)
    for case in range(150):
        write_random_case(random_source, tmp_path, f"case{case:05}")
    git(tmp_path, "init", "-q")
    assert disagreements(tmp_path, tmp_path / ".git") == []
