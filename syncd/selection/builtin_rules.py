"""The built-in rules: the patterns of `defaults.rules` and `secrets.rules`, whose heads say what belongs there."""

from __future__ import annotations

import pkgutil

GIT = (".git",)  # a folder, or the file that a worktree or submodule has instead


def _patterns(file: str) -> tuple[str, ...]:
    data = pkgutil.get_data(__package__, file)
    if not data:  # nothing may be sent without them
        raise ImportError(f"the built-in rules in {file!r} are missing: install syncd again")
    return tuple(line for line in data.decode().splitlines() if line and not line.startswith("#"))


DEFAULTS = _patterns("defaults.rules")
# The folders among them that have one name wherever they are.
DIRECTORY_NAMES = tuple(
    pattern[:-1] for pattern in DEFAULTS if pattern.endswith("/") and not set(pattern[:-1]) & set("/*?[\\")
)
SECRETS = _patterns("secrets.rules")
