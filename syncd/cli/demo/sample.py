"""A small project to play with: one of each kind of thing that is sent, and of each that stays home."""

from __future__ import annotations

import os

_FILES = {
    "README.md": "# Tea timer\n\nSays when the tea is ready. `./run.sh green`\n",
    ".gitignore": "build/\n*.log\n",
    "run.sh": '#!/bin/sh\nexec python3 -m tea "$@"\n',
    "src/tea/__init__.py": "",
    "src/tea/__main__.py": "import sys\n\nfrom tea.brew import seconds\n\nprint(seconds(sys.argv[1]))\n",
    "src/tea/brew.py": 'MINUTES = {"green": 2, "black": 4}\n\n\ndef seconds(kind):\n    return 60 * MINUTES[kind]\n',
    "src/tea/old.py": "# Nobody imports this any more.\n",
    "tests/test_brew.py": "from tea.brew import seconds\n\n\ndef test_green():\n    assert seconds('green') == 120\n",
    "docs/thé vert.txt": "Two minutes, not boiling.\n",
    ".env.example": "API_TOKEN=\n",
    # From here on, what stays home.
    ".env": "API_TOKEN=a-secret-of-the-sample\n",
    "debug.log": "started\n",
    "build/tea.bin": "\0" * 4096,
    "node_modules/left-pad/index.js": "module.exports = String\n",
}
_LINKS = {
    "docs/latest": "thé vert.txt",
    "docs/hosts": "/etc/hosts",  # leads outside, so it stays home
}


def write_sample(workspace: str) -> None:
    """Fill an empty folder."""
    for path, content in _FILES.items():
        write(workspace, path, content)
    os.chmod(os.path.join(workspace, "run.sh"), 0o755)  # noqa: S103 - that it can be run must arrive, too
    for path, target in _LINKS.items():
        os.symlink(target, os.path.join(workspace, path))


def write(workspace: str, path: str, content: str) -> None:
    """Write one file, with the folders above it."""
    target = os.path.join(workspace, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "w", encoding="utf-8") as file:
        file.write(content)


def append(workspace: str, path: str, content: str) -> None:
    """Add to a file."""
    with open(os.path.join(workspace, path), "a", encoding="utf-8") as file:
        file.write(content)
