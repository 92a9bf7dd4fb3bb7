"""What git 2.47 does with single patterns, without git: `test_selection_and_git.py` compares many more with it."""

from __future__ import annotations

import pytest

from syncd.selection.selection import Selection, pattern_list

# A pattern, the paths that it leaves out, and others.
ROWS = [
    ("a\\ ", ["a "], ["a", "a\\"]),
    ("a\\ \\  ", ["a  "], ["a ", "a"]),
    ("a\\\\ ", ["a\\"], ["a\\ ", "a"]),
    ("a\\\\\\  ", ["a\\ "], ["a\\", "a\\  "]),
    ("#a", [], ["#a", "a"]),
    ("\\#a", ["#a"], ["a"]),
    ("*", ["a", "b/c"], []),
    ("a*b", ["ab", "axb"], ["a/b", "b"]),
    ("*b*c", ["bc", "xbyc"], ["cb", "b/c"]),
    ("**", ["a", "b/c"], []),
    ("a**b", ["ab", "axyb"], ["a/b"]),
    ("**b", ["b", "ab", "a/b"], ["ba"]),
    ("***", ["a"], []),
    ("/**b", ["b", "ab"], ["x/b"]),
    ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["b", "x/a/b"]),
    ("a/**/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab"]),
    ("a/**/b/**/c", ["a/b/c", "a/x/b/c", "a/b/x/y/c"], ["a/c"]),
    ("**/b", ["b", "a/b"], ["ab"]),
    ("b/**", ["b/a", "b/a/c"], ["a/b/c"]),
    ("a/**", ["a/x"], ["x/a"]),
    ("x/a**/b", ["x/ab", "x/a1/b", "x/a1/2/b", "x/a/b"], ["x/b"]),
    ("x/a**", ["x/a", "x/ab", "x/ab/c"], ["x/b"]),
    ("a*/**/b", ["a/b", "ax/b", "ax/y/b"], ["b"]),
    ("a/x**\\/b", ["a/x1/b", "a/x/y/b"], ["a/xb", "a/b"]),
    ("a/**\\/b", ["a/x/b", "a/x/y/b"], ["a/b"]),
    ("a/?**\\/b", ["a/x/b"], ["a/b", "a/xb", "a/x/y/b"]),
    ("a/?*/b", ["a/x/b", "a/xy/b"], ["a/b", "a/x/y/b"]),
    ("a?/b", ["ax/b"], ["a/b", "axy/b"]),
    ("?", ["a"], ["ab", "é"]),
    ("[a-c]", ["a", "b", "c"], ["d", "-"]),
    ("[a-c-e]", ["a", "c", "-", "e"], ["d"]),
    ("[!a]", ["b", "!"], ["a"]),
    ("[^a]", ["b", "^"], ["a"]),
    ("[a!]", ["a", "!"], ["b"]),
    ("[]]", ["]"], ["a"]),
    ("[]a]", ["]", "a"], ["b"]),
    ("[!]]", ["a"], ["]"]),
    ("[a-]", ["a", "-"], ["b"]),
    ("[-a]", ["-", "a"], ["b"]),
    ("[c-a]", ["c"], ["a", "b"]),
    ("[c-ab]", ["b", "c"], ["a", "-"]),
    ("[\\]]", ["]"], ["\\", "a"]),
    ("[a\\-c]", ["a", "-", "c"], ["b"]),
    ("[a-\\c]", ["a", "b", "c"], ["\\", "-"]),
    ("[[:digit:]]", ["5"], ["a", ":"]),
    ("[[:digit:]-z]", ["5", "-", "z"], ["a"]),
    ("[x[:digit:]y]", ["x", "5", "y"], ["d", ":"]),
    ("[[:digit:][:upper:]]", ["5", "A"], ["a"]),
    ("[![:digit:]]", ["a"], ["5"]),
    ("[[:]", ["[", ":"], ["a"]),
    ("[[:a]", ["[", ":", "a"], ["b"]),
    ("[[:]]", ["[]", ":]"], ["["]),
    ("[[::]]", [], [":", ":]", "[]"]),
    ("[[:digit]", ["d", ":", "["], ["5"]),
    ("[[:digit:]", [], ["5", "d"]),
    ("[a]b", ["ab"], ["b", "a"]),
    ("x[ab]y", ["xay", "xby"], ["xy", "xaby"]),
    ("[a", [], ["a", "[a"]),
    ("a\\", [], ["a", "a\\"]),
    ("[[:nope:]]", [], ["n", "[[:nope:]]"]),
    ("[/]", [], ["a"]),
    ("a[/]b", [], ["a/b", "ab"]),
    ("[a/]", ["a"], ["b"]),
    ("[,-0]", ["-", "0", ","], ["a"]),
    ("!a", [], ["a"]),
    ("a/", [], ["a"]),
    ("/a", ["a"], ["b/a"]),
    ("/", [], ["a"]),
    ("", [], ["a"]),
    ("é", ["é"], ["e"]),
    ("??", ["é", "ab"], ["a"]),
    ("*/*/b", ["a/x/b"], ["a/b", "a/x/y/b"]),
    ("a/?/**\\/b", ["a/x/y/b"], ["a/x/b", "a/y/b", "a/b", "x/y/b"]),
    ("[[:]:]]", ["[:]]", "::]]"], ["[", "]"]),
]


@pytest.fixture(autouse=True)
def parsed_anew() -> None:
    """Have each test parse its patterns itself."""
    pattern_list.cache_clear()


def _is_left_out(pattern: str, path: str) -> bool:
    scope = Selection(upload_secrets=True).root().with_files({".gitignore": f"{pattern}\n".encode()})
    *above, name = path.split("/")
    for folder in above:
        if not scope.decide(folder, is_dir=True).included:
            return True
        scope = scope.enter(folder)
    return not scope.decide(name, is_dir=False).included


@pytest.mark.parametrize(("pattern", "left_out", "others"), ROWS)
def test_a_pattern(pattern: str, left_out: list[str], others: list[str]) -> None:
    """Each path is left out, or not, as by git."""
    paths = [*left_out, *others]
    assert [path for path in paths if _is_left_out(pattern, path)] == left_out
