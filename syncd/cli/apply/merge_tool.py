"""Runs git's merge tool on one path: with base, mine and theirs, in a repository of its own outside of the workspace.

Which tool, and how it is called, is what git's configuration says (`merge.tool`, `mergetool.*`), also that of the
repository around the workspace. Nothing else of it counts, and the path's own name, which an agent may have chosen, is
in no command line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.errors import NeedsPerson, SyncdError, TryLater
from syncd.core.text import shown_path
from syncd.merge.git import FILE_MODE, Git, MergedText, find_git, private_repository, with_settings
from syncd.sandbox.repository.git_in_sandbox import NO_CONFIGURATION, SETTINGS
from syncd.selection import safe_open

_ASKED_S = 0.2
_FOUND_OR_NONE = (0, 1)
_KEYS = r"^(merge\.tool|mergetool\..*)$"
# Outside of its configuration nothing says where git works, and a key is nobody's business.
_KEPT_BACK = (KEY_VARIABLE, "CREDENTIALS_DIRECTORY")
_ODD = re.compile("[^A-Za-z0-9._-]")

Sides = tuple[bytes | None, bytes, bytes]
"""Base, mine and theirs; without a base both are new."""


def has_merge_tool(workspace: str) -> bool:
    """True if git is installed and knows which merge tool to run."""
    git = find_git(os.environ)
    try:
        return git is not None and bool(_settings(git, workspace).get("merge.tool"))
    except SyncdError:
        return False


def run_merge_tool(
    git: Git,
    sides: Sides,
    merged: MergedText | str,
    *,
    path: str,
    workspace: str,
    scratch: str,
    check: Callable[[], None],
    output: int,
) -> bytes:
    """Return what a person makes of the sides in the merge tool, which begins with what git could merge.

    `check` raises `Stop` if the command was stopped meanwhile; `output` is the tool's stdout. Raises `NeedsPerson`
    without a tool, `TryLater` if it did not end well, or left the conflicts as they were.
    """
    settings = _settings(git, workspace)
    tool = settings.get("merge.tool")
    if not tool:
        raise NeedsPerson(
            "git has no merge tool configured",
            "`git config --global merge.tool NAME`; `git mergetool --tool-help` lists some",
        )
    if f"mergetool.{tool}.cmd" in settings:
        # Else git would ask, or believe the time of the file, and take what a tool wrote before it failed.
        settings.setdefault(f"mergetool.{tool}.trustexitcode", "true")
    settings |= {"mergetool.keepBackup": "false", "mergetool.writeToTemp": "false"}
    name = _harmless_name(path)
    start = sides[1] if isinstance(merged, str) else merged.content
    with private_repository(git, scratch, "sha1") as repository:
        work_tree = os.path.join(repository, "work")
        os.mkdir(work_tree)
        variables = {"GIT_DIR": repository, "GIT_WORK_TREE": work_tree}
        rows = [
            b"%s %s %d\t%s\n" % (FILE_MODE, _object(git, content, variables), stage, name.encode())
            for stage, content in enumerate(sides, 1)
            if content is not None
        ]
        git.run(["update-index", "--index-info"], variables, given=b"".join(rows))
        file = os.path.join(work_tree, name)
        with open(file, "xb") as begun:
            begun.write(start)
        options = [part for setting in SETTINGS if not setting.startswith("core.editor") for part in ("-c", setting)]
        line = [git.program, *options, "mergetool", "--no-prompt", f"--tool={tool}", "--", name]
        code = _run(line, work_tree, _environment(variables, settings), check, output)
        if code:
            raise TryLater(f"the merge tool {tool!r} did not end well for {shown_path(path)!r}", "nothing was changed")
        content = _read(file, path)
    if content == start and (isinstance(merged, str) or merged.has_conflicts):
        raise TryLater(
            f"the merge tool {tool!r} left {shown_path(path)!r} as it was", "nothing was changed; merge it, and save it"
        )
    return content


def _settings(git: Git, workspace: str) -> dict[str, str]:
    """Return git's configuration of merge tools, as it is in the workspace; the last value of each key."""
    found = git.ask(["config", "--null", "--get-regexp", _KEYS], {}, workspace, allowed=_FOUND_OR_NONE)
    pairs = (os.fsdecode(item).partition("\n") for item in found.output.split(b"\0") if item)
    return {key: value for key, newline, value in pairs if newline}


def _harmless_name(path: str) -> str:
    """Return a name like the path's last one, by which an editor knows the language, of harmless characters alone."""
    name = _ODD.sub("_", path.rpartition("/")[2])[-60:]
    return name if name[:1].isalnum() else f"_{name}"


def _object(git: Git, content: bytes, variables: Mapping[str, str]) -> bytes:
    return git.run(["hash-object", "-w", "--stdin"], variables, given=content).output.strip()


def _environment(variables: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return the person's environment, with no configuration of git but what is handed on."""
    person = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") and k not in _KEPT_BACK}
    nothing = {key: value for key, value in NO_CONFIGURATION.items() if key.startswith("GIT_")}
    return {**person, **nothing, "GIT_ATTR_NOSYSTEM": "1", **variables, **with_settings(settings)}


def _run(line: list[str], folder: str, environ: Mapping[str, str], check: Callable[[], None], output: int) -> int:
    """Run the tool to its end, and return its exit code. Raises `NeedsPerson`, and what `check` does."""
    sys.stdout.flush()
    try:
        program = subprocess.Popen(line, cwd=folder, env=environ, stdout=output)
    except OSError as failure:
        raise NeedsPerson(f"git cannot be started ({failure.strerror})", "see that `git --version` works") from None
    with program:
        try:
            while program.returncode is None:
                with suppress(subprocess.TimeoutExpired):
                    program.wait(_ASKED_S)
                check()
        except BaseException:
            program.terminate()
            raise
    return program.returncode


def _read(file: str, path: str) -> bytes:
    try:
        descriptor, _ = safe_open.open_file(file, None)
        with os.fdopen(descriptor, "rb") as found:
            return found.read()
    except OSError as failure:
        reason = failure.strerror or failure
        raise TryLater(
            f"the merge tool left no file for {shown_path(path)!r} ({reason})", "nothing was changed"
        ) from None
