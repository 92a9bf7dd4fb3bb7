"""What git takes for a repository, or for its list of submodules, on any file system."""

from __future__ import annotations

import pytest

from syncd.model.git_names import is_in_repository, names_submodules

REPOSITORIES = (
    *(".git", ".git/config", "sub/.GiT/x", "a/.git"),
    *("git~1", "GIT~1/config", "sub/git~1"),
    *(".g\u200cit/config", ".git\u200d", ".\ufeffgit/x", "\u202e.git", "g\u206fit~1"),
    *(".git.", ".git ", ".git ./x", ".git. \u200c./x"),
    *(".git::$INDEX_ALLOCATION/hooks/x", ".git:stream", "a\\.git\\config"),
)
ORDINARY = (
    *(".gitignore", ".github/x", ".gitx/y", "agit/config", "git", "git.", "sub/.git-notes", "x.git/y"),
    *("git~notes", "git~2", "git~10", ".git x", "\udcff.git", ".g\u200bit", ".g\u0131t", "\u00e9/git"),
)


@pytest.mark.parametrize("path", REPOSITORIES, ids=ascii)
def test_names_of_a_repository(path: str) -> None:
    """In any letter case, and as NTFS and HFS+ read a name."""
    assert is_in_repository(path)


@pytest.mark.parametrize("path", ORDINARY, ids=ascii)
def test_names_that_only_look_alike(path: str) -> None:
    """They are files like others."""
    assert not is_in_repository(path)


def test_names_of_the_list_of_submodules() -> None:
    """The last name alone counts."""
    named = (".gitmodules", "a/.GITMODULES ", "GITMOD~1", "gi7eba~12", ".gitmodules:x", ".git\u200cmodules")
    assert [path for path in named if not names_submodules(path)] == []
    others = (".gitmodules/x", ".gitmodule", "gitmod~5", "x.gitmodules", ".gitmodules\\x", ".gitmodules/\n")
    assert [path for path in others if names_submodules(path)] == []
