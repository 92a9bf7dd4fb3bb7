"""What a newcomer reads names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import syncd


def test_the_changelog_has_this_version(repo: Path) -> None:
    """The newest entry of the changelog is the version that the code says it is."""
    versions = re.findall(r"^## (\S+)", (repo / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == syncd.__version__
