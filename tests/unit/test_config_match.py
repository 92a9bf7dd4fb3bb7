"""Which configurations belong to a directory."""

from __future__ import annotations

import pytest

from syncd.core.config_file import ConfiguredWorkspace, holding

CODE, INNER, SITE = (ConfiguredWorkspace(f"/c/{name}.toml", path) for name, path in (
    ("code", "/home/code"), ("inner", "/home/code/pkg/inner"), ("site", "/home/site"),
))  # fmt: skip
AGAIN = ConfiguredWorkspace("/c/again.toml", "/home/site")


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/home/code", [CODE]),
        ("/home/code/pkg", [CODE]),
        ("/home/code/pkg/inner", [INNER]),
        ("/home/code/pkg/inner/src", [INNER]),
        ("/home/code/pkg/inner-not", [CODE]),
        ("/home/code-not", []),
        ("/home", []),
        ("/", []),
        ("/home/site/a", [SITE, AGAIN]),
    ],
)
def test_the_deepest_workspace_holds_a_directory(directory: str, expected: list[ConfiguredWorkspace]) -> None:
    """A directory belongs to the deepest workspace around it, and to all configurations of that one."""
    assert holding(directory, [CODE, INNER, SITE, AGAIN]) == expected
    assert holding(directory, [INNER, CODE, SITE, AGAIN]) == expected
