"""Finds the user's own exclude file. Git is asked, once at the start: only git reads its configuration correctly."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.errors import ConfigError, TryLater
from syncd.core.text import one_line

_GIT_S = 5.0
# The exit code of `git config --get` for a name that is not set.
_NOT_SET = 1


def personal_excludes(environ: Mapping[str, str]) -> str:
    """Return the path of the user's own exclude file: from git's configuration, else `$XDG_CONFIG_HOME/git/ignore`.

    Only the user's and the machine's configuration count, never the workspace's. Raises `ConfigError` if git cannot
    read its configuration, `TryLater` if git does not answer: without that file, paths that it excludes would be
    uploaded.
    """
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    git = shutil.which("git", path=environ.get("PATH"))
    if git is not None and (environ.get("HOME") or environ.get("GIT_CONFIG_GLOBAL")):  # else git has no user's file
        for scope in ("--global", "--system"):
            path = _run([git, "config", scope, "--type=path", "--get", "core.excludesFile"], environ)
            if path:
                return path
    return os.path.join(home, "git", "ignore")


def _run(command: list[str], environ: Mapping[str, str]) -> str:
    without_key = {name: value for name, value in environ.items() if name != KEY_VARIABLE}
    try:
        result = subprocess.run(command, capture_output=True, timeout=_GIT_S, check=False, cwd="/", env=without_key)
    except (OSError, subprocess.SubprocessError) as failure:
        raise TryLater(
            f"git was asked for your exclude file and does not answer ({one_line(str(failure))})",
            "try again, or set workspace.use_gitignore = false",
        ) from None
    if result.returncode not in (0, _NOT_SET):
        reason = one_line(result.stderr.decode("utf-8", "replace"), 120)
        raise ConfigError(
            f"git cannot read its configuration, which may name your exclude file ({reason})",
            f"correct it until `git config {command[2]} --list` works",
        )
    return os.fsdecode(result.stdout.rstrip(b"\n"))
