"""`python -m tests.reference` writes docs/reference.md and the manual page from the program."""

from __future__ import annotations

from pathlib import Path

from tests.reference.manual import manual
from tests.reference.page import page

REPO = Path(__file__).resolve().parent.parent.parent
MADE = {"docs/reference.md": page, "syncd/share/man/man1/syncd.1": manual}

if __name__ == "__main__":
    for path, text in MADE.items():
        (REPO / path).write_text(text(), "utf-8")
        print(f"wrote {path}")
