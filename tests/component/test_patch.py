"""A patch, applied by real programs to what was before, gives what is after, byte for byte."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from syncd.cli.diff import TABLE, for_terminal, write_patch
from syncd.cli.output import Tone, styled
from syncd.core.errors import TryLater
from syncd.merge.git import Git, find_git
from syncd.model.entry import Kind, SeenEntry
from tests.fuzz.operations import tree
from tests.looks import file_of, link_to
from tests.repositories import git as run_git

Versions = Mapping[str, SeenEntry]
NAMES = [
    b"plain.txt",
    b"sp ace.txt",
    b" both ends ",
    b"new\nline.txt",
    b"caf\xe9.txt",
    "日本/ü.txt".encode(),
    b"-rf",
    b"--- a",
    b"quo'te\".txt",
    b"back\\slash.txt",
    b"tab\there.txt",
    b"\x01\x7f\xff",
    b"a/b/ b/c",
    b"d/" + b"deep/" * 20 + b"er.txt",
    b"*?[x]",
    b":(glob)",
    b"carriage\rreturn",
    b".gitattributes",
    b".gitignore",
]
ODD = [os.fsdecode(name) for name in NAMES]


@pytest.fixture
def chance() -> random.Random:
    return random.Random(7)


def text(label: str, count: int = 30) -> bytes:
    return "".join(f"{label} {number}\n" for number in range(count)).encode()


def patch_of(git: Git, before: Versions, after: Versions, **options: object) -> bytes:
    return b"".join(write_patch(git, before, after, **options))  # type: ignore[arg-type]


def written(folder: Path, versions: Versions) -> Path:
    folder.mkdir()
    for path, version in versions.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if version.kind is Kind.SYMLINK:
            place.symlink_to(version.target)
        else:
            shutil.copyfile(version.copy, place)
            place.chmod(version.mode)
    return folder


def files_in(folder: Path) -> dict[str, tuple[object, ...]]:
    """Each file and link with its kind and content."""
    return {path: entry for path, entry in tree(folder).items() if entry[0] != "folder"}


def expected(versions: Versions) -> dict[str, tuple[object, ...]]:
    return {
        path: ("link", version.target)
        if version.kind is Kind.SYMLINK
        else ("file", bool(version.mode & 0o100), Path(version.copy).read_bytes())
        for path, version in versions.items()
    }


def applied_by_git(folder: Path, patch: bytes) -> dict[str, tuple[object, ...]]:
    outside = {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    run_git(folder, "apply", "--check", given=patch, **outside)
    run_git(folder, "apply", "--whitespace=nowarn", given=patch, **outside)
    return files_in(folder)


def test_git_applies_a_large_file(git: Git, tmp_path: Path, chance: random.Random) -> None:
    """What git takes for binary by its size comes in the patch too."""
    content = bytearray(17 << 20)
    before: dict[str, SeenEntry] = {"big": file_of(bytes(content))}
    content[:1000] = chance.randbytes(1000)
    after: dict[str, SeenEntry] = {"big": file_of(bytes(content), 0o755), "text": file_of(text("is"))}
    assert applied_by_git(written(tmp_path / "tree", before), patch_of(git, before, after)) == expected(after)


def test_attributes_and_settings_change_nothing(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the person's configuration, nor the environment, nor attributes among the changes reach the patch."""
    before: dict[str, SeenEntry] = {"a.txt": file_of(text("was"))}
    after: dict[str, SeenEntry] = {"a.txt": file_of(text("is")), ".gitattributes": file_of(b"* -diff binary\n")}
    plain = patch_of(git, before, after)
    mark, program = tmp_path / "mark", tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho run >> {mark}\n")
    program.chmod(0o755)
    home = tmp_path / "home"
    (home / "git").mkdir(parents=True)
    (home / "git/attributes").write_text("* diff=evil\n")
    (home / ".gitconfig").write_text(
        f'[diff]\nexternal = {program}\nnoprefix = true\nrenames = true\n[diff "evil"]\ntextconv = {program}\n'
        f"command = {program}\n[core]\nquotePath = false\nattributesFile = {home}/git/attributes\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(program))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    found = find_git(os.environ)
    assert found is not None
    assert patch_of(found, before, after) == plain
    assert b"+is 0\n" in plain
    assert not mark.exists()


def test_a_terminal_gets_nothing_that_it_obeys(git: Git) -> None:
    """What a file holds is shown escaped, and coloured by what its line begins with."""
    evil = b"\x1b[32mgreen\x1b[2J\t\x9b\xc2\x9b\xe2\x80\xae\x7f\r\n"
    before: dict[str, SeenEntry] = {"a\x1b[2J": file_of(b"-- x\n@@ -1 +1 @@\n" + evil), "z": file_of(b"z\n")}
    after: dict[str, SeenEntry] = {"a\x1b[2J": file_of(b"-- x\n++ y\n" + evil + b"no end"), "\xe9": file_of(b"z\n")}
    patch = patch_of(git, before, after)
    shown = list(for_terminal(patch.splitlines(keepends=True)))
    escaped = "\\x1b[32mgreen\\x1b[2J\t\\x9b\\x9b\\u202e\\x7f\\r"
    assert [line for line in shown if "\\x1b" in line or "--" in line or "++" in line][:8] == [
        styled('diff --git "a/a\\033[2J" "b/a\\033[2J"', Tone.STRONG),
        styled('--- "a/a\\033[2J"', Tone.BAD),
        styled('+++ "b/a\\033[2J"', Tone.GOOD),
        " -- x",
        styled("+++ y", Tone.GOOD),
        f" {escaped}",
        styled("diff --git a/z b/z", Tone.STRONG),
        styled("--- a/z", Tone.BAD),
    ]
    assert styled("-@@ -1 +1 @@", Tone.BAD) in shown
    assert [" ".join(line.split()) for line in for_terminal(write_patch(git, before, after, TABLE))][:3] == [
        '"a\\033[2J" | 3 ++-',
        "z | 1 -",
        "\xe9 | 1 +",
    ]


def test_nothing_is_left_behind(git: Git, tmp_path: Path) -> None:
    """The private folder is gone after the last line, and after a reader that stops in the middle."""
    before: dict[str, SeenEntry] = {}
    after: dict[str, SeenEntry] = {f"{number}.txt": file_of(text("new", 3000)) for number in range(20)}
    blocks = write_patch(git, before, after, scratch=str(tmp_path))
    assert isinstance(blocks, Iterator)
    assert next(blocks).startswith(b"diff --git a/0.txt b/0.txt\n")
    assert len(os.listdir(tmp_path)) == 1
    blocks.close()  # type: ignore[attr-defined]
    assert os.listdir(tmp_path) == []
    assert patch_of(git, before, after, scratch=str(tmp_path)).count(b"diff --git") == 20
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("has", [b"short", b"longer than was announced"])
def test_a_file_that_changes_meanwhile_is_no_patch(git: Git, tmp_path: Path, has: bytes) -> None:
    """A content of another length than announced is a failure that names the file, not a wrong patch."""
    version = file_of(has, size_bytes=12)
    with pytest.raises(TryLater, match=r"^'file\\n' changed while it was read"):
        patch_of(git, {}, {"file\n": version}, scratch=str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_random_changes(git: Git, chance: random.Random, tmp_path: Path) -> None:
    """Random trees with names of any bytes: what git makes of the patch is what is after."""
    contents = [b"", b"\n", b"a", text("x"), text("x", 29), b"\0", b"a\r\nb\r\n", chance.randbytes(400)]
    paths = ["a", "a/b", "a/b/c", "b", "b/x", *ODD]

    def drawn() -> dict[str, SeenEntry]:
        chosen: dict[str, SeenEntry] = {}
        for path in chance.sample(paths, chance.randrange(len(paths))):
            if any(other.startswith(f"{path}/") or path.startswith(f"{other}/") for other in chosen):
                continue
            content = chance.choice(contents)
            link = chance.random() < 0.2
            chosen[path] = link_to("x") if link else file_of(content, 0o755 if chance.random() < 0.3 else 0o644)
        return chosen

    for number in range(25):
        before, after = drawn(), drawn()
        patch = patch_of(git, before, after)
        folder = written(tmp_path / str(number), before)
        assert (applied_by_git(folder, patch) if patch else files_in(folder)) == expected(after), (before, after)
