"""`python -m tools.reference` writes docs/reference.md and the manual page from the program."""

from __future__ import annotations

from pathlib import Path

from tools.reference import page
from tools.reference.manual import manual

REPO = Path(__file__).resolve().parent.parent.parent
MADE = {"docs/reference.md": page.page, "syncd/share/man/man1/syncd.1": manual}

if __name__ == "__main__":
    for path, text in MADE.items():
        (REPO / path).write_text(text(), "utf-8")
        print(f"wrote {path}")
