"""Creates a `.git` folder that git accepts as a repository, without running git."""

from __future__ import annotations

from pathlib import Path


def make_repository(top: Path, exclude: str = "") -> Path:
    """Create it, and return its exclude file."""
    for name in ("objects", "refs", "info"):
        (top / ".git" / name).mkdir(parents=True)
    (top / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (top / ".git/info/exclude").write_text(exclude)
    return top / ".git/info/exclude"
