"""The files that a person should look at before they are used, by their paths."""

from __future__ import annotations

import pytest

from syncd.cli.apply.plan_text import decides_what_is_sent, runs_automatically


@pytest.mark.parametrize(
    ("path", "runs", "decides"),
    [
        ("Makefile", True, False),
        ("sub/makefile", True, False),
        (".github/workflows/x.yml", True, False),
        ("deep/er/.envrc", True, False),
        (".ENVRC", True, False),
        (".gitattributes", True, False),
        ("sub/.gitmodules", True, False),
        (".gitignore", False, True),
        ("sub/.syncdignore", False, True),
        ("sub/.GitIgnore", False, True),
        (".worktreeinclude", False, True),
        ("sub/.worktreeinclude", False, False),
        ("gitignore", False, False),
        (".gitignore/x", False, False),
        ("my.envrc.md", False, False),
        ("src/main.py", False, False),
    ],
)
def test_what_to_look_at(path: str, runs: bool, decides: bool) -> None:
    """At any depth and in any letter case, what runs by itself, and what decides which paths leave."""
    assert (runs_automatically(path), decides_what_is_sent(path)) == (runs, decides)
