"""The plan of an `apply` as text: a line a path, the outcomes that change something first.

The reason of an outcome comes with it, from where it is decided (`model.reconcile`). This names what a person should
look at before: files that run by themselves at home, and those that decide what is sent; in any letter case, since a
workspace may lie on a file system that does not tell them apart.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator

from syncd.core.errors import TryLater
from syncd.core.text import few, shown_path
from syncd.model.entry import EXECUTABLE, Kind
from syncd.model.manifest import directories_above
from syncd.model.reconcile import CHANGES, PathOutcome, Plan, PlannedPath
from syncd.selection.selection import RULE_FILES, WORKTREEINCLUDE

# Of each outcome that is told: the word before a path, the list of `--json`, and the word after a number.
_WORDS = {
    PathOutcome.TAKE: ("apply", "taken", "applied"),
    PathOutcome.MERGE: ("merge", "merged", "merged"),
    PathOutcome.DELETE: ("delete", "deleted", "deleted"),
    PathOutcome.WRITE: ("mine", "mine", "as here"),
    PathOutcome.CONFLICT: ("conflict", "conflicts", "in conflict"),
    PathOutcome.STAYS: ("stays", "stays", ""),
    PathOutcome.DELETED_THERE: ("stays", "stays", ""),
    PathOutcome.UNFETCHED: ("stays", "stays", "not fetched"),
    PathOutcome.NEVER: ("never", "never", ""),
}
# By agents, editors, shells, interpreters, build tools and services that act on a checkout without being asked for that
# file, or obey it; each pattern is in lower case, of a path's end.
_AUTOMATIC = """
    .claude/* claude.md claude.local.md agents.md agents.override.md gemini.md .mcp.json .cursor/* .cursorrules
    .windsurf/* .windsurfrules .gemini/* .codex/* .github/copilot-instructions.md .aider.conf.yml

    .vscode/* *.code-workspace .idea/* .zed/* .devcontainer/* .devcontainer.json *.sublime-project .exrc .vimrc
    .nvimrc .nvim.lua .dir-locals.el .dir-locals-2.el .gdbinit .lldbinit

    .envrc mise.toml mise.*.toml .mise.toml .mise.*.toml mise/config.toml .mise/config.toml .tool-versions

    .gitattributes .gitmodules .husky/* .pre-commit-config.yaml lefthook.* .lefthook.* lefthook-local.*

    .github/workflows/* .github/actions/* .forgejo/workflows/* .forgejo/actions/* .gitea/workflows/*
    .gitea/actions/* .gitlab-ci.yml .circleci/* .buildkite/* .travis.yml .drone.yml .woodpecker.y*ml .woodpecker/*
    azure-pipelines.yml bitbucket-pipelines.yml jenkinsfile

    makefile gnumakefile *.mk justfile taskfile.yml rakefile build.gradle build.gradle.kts settings.gradle
    settings.gradle.kts gradlew mvnw cmakelists.txt configure
    package.json .npmrc .yarnrc .yarnrc.yml .yarn/releases/* .yarn/plugins/* .pnpmfile.cjs .pnpmfile.mjs
    eslint.config.* .eslintrc .eslintrc.* prettier.config.* .prettierrc.*
    pyproject.toml setup.py conftest.py sitecustomize.py usercustomize.py *.pth
    build.rs .cargo/config .cargo/config.toml
"""
_RUNS = re.compile(f"(?s:.*/)?(?:{'|'.join(map(fnmatch.translate, _AUTOMATIC.split()))})")


def plan_lines(plan: Plan) -> Iterator[str]:
    """Return the lines, a path each.

    None is for what is the same on both sides, nor for directories that come with a file.
    """
    above = directories_above(planned.path for planned in plan.paths)
    for outcome, (word, _, _) in _WORDS.items():
        for planned in plan.of(outcome):
            is_new_folder = planned.there.kind is Kind.DIRECTORY and outcome is PathOutcome.TAKE
            if not (is_new_folder and planned.path in above):
                yield f"{word:8}  {shown_path(planned.path)}{_note(planned)}"
    for path, why in to_look_at(plan.of(*CHANGES)).items():
        yield f"look at   {shown_path(path)}: {why}"


def to_look_at(changes: Iterable[PlannedPath]) -> dict[str, str]:
    """Return those of the paths that a person should look at before they are used, each with the reason."""
    reasons = {planned.path: _reason_to_look(planned) for planned in changes}
    return {path: reason for path, reason in reasons.items() if reason}


def summary_line(plan: Plan, prefix: str = "") -> str:
    """Return the numbers of paths by outcome, if there are any after the prefix."""
    numbers = [(len(plan.of(outcome)), word) for outcome, (_, _, word) in _WORDS.items() if word]
    counts = ", ".join(f"{number:,} {word}" for number, word in numbers if number)
    return f"{prefix}{counts}" if counts else "nothing to apply"


def not_fetched(plan: Plan) -> TryLater | None:
    """Return the failure that names what could not be fetched; None if all was."""
    if not (paths := plan.of(PathOutcome.UNFETCHED)):
        return None
    names = ", ".join(few([shown_path(each.path) for each in paths], len(paths)))
    return TryLater(
        f"not applied: {names} ({paths[0].reason})",
        "run `syncd apply` again for the rest, and see to what it names once more",
    )


def lists_of(plan: Plan) -> dict[str, list[str]]:
    """Return the lists that `--json` has of a plan."""
    lists: dict[str, list[str]] = {name: [] for _, name, _ in _WORDS.values()}
    for each in plan.paths:
        if each.outcome in _WORDS:
            lists[_WORDS[each.outcome][1]].append(each.path)
    return {**lists, "undone": [], "look_at": [*to_look_at(plan.of(*CHANGES))]}


def runs_automatically(path: str) -> bool:
    """True if a program runs this file, or what it says, without being asked for it; at any depth."""
    return _RUNS.match(path.lower()) is not None


def decides_what_is_sent(path: str) -> bool:
    """True for an ignore file, at any depth, and for `.worktreeinclude` at the top."""
    name = path.rpartition("/")[2].lower()
    return name in RULE_FILES and (name != WORKTREEINCLUDE or name == path.lower())


def _note(planned: PlannedPath) -> str:
    if planned.outcome is PathOutcome.TAKE:
        return " (new)" if planned.here.kind is Kind.ABSENT else ""
    if planned.outcome is PathOutcome.DELETED_THERE:
        return ": deleted in the sandbox; --deletions deletes it here"
    return f": {planned.reason}" if planned.reason else ""


def _reason_to_look(planned: PlannedPath) -> str:
    if decides_what_is_sent(planned.path):
        return "it decides what is sent"
    if planned.there.kind in (Kind.DIRECTORY, Kind.ABSENT):
        return ""
    if runs_automatically(planned.path):
        return "it may run by itself here"
    was_executable = planned.here.kind is Kind.FILE and planned.here.mode & EXECUTABLE
    if planned.there.kind is Kind.FILE and planned.there.mode & EXECUTABLE and not was_executable:
        return "it is executable now"
    return ""
