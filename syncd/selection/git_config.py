"""Where a person's own exclude file lies. Git is asked, once at the start: only git reads its configuration right."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.errors import ConfigError, TryLater
from syncd.core.text import one_line

_GIT_S = 5.0
# What `git config --get` ends with for a name that is not there.
_NOT_SET = 1


def personal_excludes(environ: Mapping[str, str]) -> str:
    """The path of the person's own exclude file: what git's configuration names, else `$XDG_CONFIG_HOME/git/ignore`.

    Only the person's and the machine's configuration count, never the workspace's. Raises `ConfigError` if git cannot
    read its configuration, `TryLater` if git does not answer: to go on without that file would upload what it names.
    """
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    git = shutil.which("git", path=environ.get("PATH"))
    if git is not None and (environ.get("HOME") or environ.get("GIT_CONFIG_GLOBAL")):  # without a home git has none
        for scope in ("--global", "--system"):
            named = _ask([git, "config", scope, "--type=path", "--get", "core.excludesFile"], environ)
            if named:
                return named
    return os.path.join(home, "git", "ignore")


def _ask(command: list[str], environ: Mapping[str, str]) -> str:
    told = {name: value for name, value in environ.items() if name != KEY_VARIABLE}
    try:
        said = subprocess.run(command, capture_output=True, timeout=_GIT_S, check=False, cwd="/", env=told)
    except (OSError, subprocess.SubprocessError) as failure:
        raise TryLater(
            f"git was asked for your exclude file and does not answer ({one_line(str(failure))})",
            "try again, or set workspace.use_gitignore = false",
        ) from None
    if said.returncode not in (0, _NOT_SET):
        why = one_line(said.stderr.decode("utf-8", "replace"), 120)
        raise ConfigError(
            f"git cannot read its configuration, which may name your exclude file ({why})",
            f"mend it until `git config {command[2]} --list` works",
        )
    return os.fsdecode(said.stdout.rstrip(b"\n"))
