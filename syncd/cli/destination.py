"""The folder into which a command puts files of the sandbox."""

from __future__ import annotations

import os

from syncd.core.errors import NeedsPerson
from syncd.core.settings import Config
from syncd.core.text import shown_path


def refuse_workspace(config: Config, destination: str) -> None:
    """Raise `NeedsPerson` for a folder in the workspace: what is put there would be sent."""
    if f"{os.path.realpath(destination)}/".startswith(f"{config.workspace.path}/"):
        raise NeedsPerson(
            f"{shown_path(destination)!r} is in the workspace, so what is put there would be sent",
            "name a folder outside of it",
        )
