"""Where a person's own exclude file lies. Git is asked, once at the start: only git reads its configuration right."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping

_GIT_S = 5.0


def personal_excludes(environ: Mapping[str, str]) -> str:
    """The path of the person's own exclude file: what git's configuration names, else `$XDG_CONFIG_HOME/git/ignore`.

    Only the person's and the machine's configuration count, never the workspace's.
    """
    git = shutil.which("git", path=environ.get("PATH"))
    if git is not None:
        asked = [git, "config", "--global", "--type=path", "--get", "core.excludesFile"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(asked, capture_output=True, timeout=_GIT_S, check=False, cwd="/", env=dict(environ))
            if said.returncode == 0 and said.stdout.strip():
                return os.fsdecode(said.stdout.rstrip(b"\n"))
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "git", "ignore")
