"""A `notify-send` that writes down what it was to show."""

from __future__ import annotations

from pathlib import Path

_RECORDS = """#!/bin/sh
env >"{folder}/environ"
while [ "$1" != -- ]; do shift; done
printf '%s\\0%s\\0' "$2" "$3" >>"{folder}/shown"
"""


class Desktop:
    """The folder with that program, for a PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "desktop"
        self.folder.mkdir()
        self.program = self.folder / "notify-send"
        self.program.write_text(_RECORDS.format(folder=self.folder))
        self.program.chmod(0o755)

    def instead(self, does: str | None) -> None:
        """Have the program do this instead; None: there is none."""
        self.program.unlink(missing_ok=True)
        if does is not None:
            self.program.write_text(f"#!/bin/sh\nexec {does}\n")
            self.program.chmod(0o755)

    def shown(self) -> list[tuple[str, str]]:
        """The summary and the body of each notice."""
        file = self.folder / "shown"
        texts = file.read_text().split("\0")[:-1] if file.exists() else []
        return list(zip(texts[::2], texts[1::2], strict=True))

    def environ(self) -> str:
        """The environment of the last one."""
        return (self.folder / "environ").read_text()
