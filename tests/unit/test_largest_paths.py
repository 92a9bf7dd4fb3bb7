"""The largest paths of a snapshot and the line that leaves one out."""

from __future__ import annotations

import pytest

from syncd.cli.check.largest_paths import heaviest, ignore_line
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.selection.selection import Selection, SelectionSettings


def _manifest(sizes: dict[str, int]) -> Manifest:
    found: Manifest = {}
    for path, size in sizes.items():
        components = path.split("/")
        for depth in range(1, len(components)):
            found.setdefault("/".join(components[:depth]), Entry(Kind.DIRECTORY, 0o755, 0))
        found[path] = Entry(Kind.FILE, 0o644, 0, size)
    return found


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, []),
        ({"a": 0}, []),
        ({"a": 3, "b": 7}, [("b", 7), ("a", 3)]),
        ({f"src/{n}": 10 for n in range(9)}, [("src", 90)]),  # many small ones: the folder is named
        ({"data/raw/deep/big": 90, "data/x": 10}, [("data/raw/deep/big", 90), ("data/x", 10)]),  # one is most of it
        ({"a/b": 1, "c": 999}, [("c", 999)]),  # less than a hundredth is not named
        ({"a/x": 50, "a/y": 50, "b": 10}, [("a/x", 50), ("a/y", 50), ("b", 10)]),
    ],
)
def test_heaviest(sizes: dict[str, int], expected: list[tuple[str, int]]) -> None:
    """Whole folders, replaced by their entries only where one dominates; nothing is counted twice."""
    found = heaviest(_manifest(sizes), 10)
    assert [(weight.path, weight.size_bytes) for weight in found] == expected
    assert all(weight.is_dir == (weight.path not in sizes) for weight in found)


def test_no_more_than_asked_for() -> None:
    """Only the largest `count`, in order, with their shares of all bytes."""
    found = heaviest(_manifest({f"f{n:02}": n for n in range(1, 41)}), 3)
    assert [weight.path for weight in found] == ["f40", "f39", "f38"]
    assert found[0].share == pytest.approx(40 / 820)


@pytest.mark.parametrize(
    "path", ["a", "data/raw", "a*b", "[x]", "a?", "back\\slash", "end ", "!no", "#no", "tab\tand\nline", "caf\xe9"]
)
@pytest.mark.parametrize("is_dir", [True, False])
def test_the_pattern_excludes_the_path(path: str, is_dir: bool) -> None:
    """The line leaves out that path alone, also if its name has characters with a meaning in ignore files."""
    line = ignore_line(path, is_dir)
    assert line.isprintable()
    scope = Selection(SelectionSettings()).root().with_files({".syncdignore": line.encode() + b"\n"})
    *above, name = path.split("/")
    for folder in above:
        scope = scope.enter(folder)
    assert not scope.decide(name, is_dir).included
    assert scope.decide("other", is_dir).included
