"""The plan of an `apply` as text, and what a person should look at before it is used."""

from __future__ import annotations

import pytest

from syncd.cli.apply.plan_text import (
    decides_what_is_sent,
    lists_of,
    not_fetched,
    plan_lines,
    runs_automatically,
    summary_line,
    to_look_at,
)
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.reconcile import CHANGES, PathOutcome, Plan, PlannedPath

FILE, RUNS = Entry(Kind.FILE, 0o644), Entry(Kind.FILE, 0o744)
FOLDER, LINK = Entry(Kind.DIRECTORY, 0o755), Entry(Kind.SYMLINK, target="a")
TAKE, MERGE, DELETE = PathOutcome.TAKE, PathOutcome.MERGE, PathOutcome.DELETE
CONFLICT, STAYS, NEVER = PathOutcome.CONFLICT, PathOutcome.STAYS, PathOutcome.NEVER


def planned(path: str, outcome: PathOutcome, here: Entry = FILE, there: Entry = FILE, reason: str = "") -> PlannedPath:
    seen = SeenEntry(there.kind, there.mode, target=there.target)
    return PlannedPath(path, outcome, FILE, here, seen, reason)


PLAN = Plan(
    (
        planned(".envrc", MERGE),
        planned("a", TAKE),
        planned("at odds", CONFLICT, reason="both changed it"),
        planned("at odds too", CONFLICT),
        planned("bad\nname", TAKE),
        planned("both gone", PathOutcome.SAME),
        planned("dir", TAKE, ABSENT, FOLDER),
        planned("dir-a", TAKE, ABSENT),
        planned("dir/deep/new", TAKE, ABSENT),
        planned("empty", TAKE, ABSENT, FOLDER),
        planned("emptyish", DELETE, FOLDER, FOLDER),
        planned("gone", DELETE, there=ABSENT),
        planned("gone there", PathOutcome.DELETED_THERE, there=ABSENT),
        planned("left", STAYS, reason="deleted here, changed there"),
        planned("out", NEVER, there=LINK, reason="a link out of the workspace"),
        planned("ours", PathOutcome.WRITE),
        planned("sub/.gitignore", TAKE),
        planned("tool", TAKE, there=RUNS),
        planned("tool/of mine", TAKE, RUNS, RUNS),
        planned("was a folder", TAKE, Entry(Kind.DIRECTORY, 0o755), RUNS),
    )
)
LINES = r"""
apply     a
apply     bad\nname
apply     dir-a (new)
apply     dir/deep/new (new)
apply     empty (new)
apply     sub/.gitignore
apply     tool
apply     tool/of mine
apply     was a folder
merge     .envrc
delete    emptyish
delete    gone
mine      ours
conflict  at odds: both changed it
conflict  at odds too
stays     left: deleted here, changed there
stays     gone there: deleted in the sandbox; --deletions deletes it here
never     out: a link out of the workspace
look at   .envrc: it may run by itself here
look at   sub/.gitignore: it decides what is sent
look at   tool: it is executable now
look at   was a folder: it is executable now
"""


def test_a_line_a_path() -> None:
    """What changes something first; none for what is the same, nor for a folder that comes with a file."""
    assert [*plan_lines(PLAN)] == LINES.split("\n")[1:-1]
    assert summary_line(PLAN) == "10 applied, 1 merged, 2 deleted, 1 as here, 2 in conflict"
    assert summary_line(PLAN, "would be: ") == "would be: 10 applied, 1 merged, 2 deleted, 1 as here, 2 in conflict"
    assert to_look_at(PLAN.of(*CHANGES)).keys() == {".envrc", "sub/.gitignore", "tool", "was a folder"}
    assert [*plan_lines(Plan())] == []
    assert summary_line(Plan(), "would be: ") == "nothing to apply"


def test_the_lists_of_a_plan() -> None:
    """One an outcome, whatever is in it; and what to look at."""
    lists = lists_of(PLAN)
    assert (lists["merged"], lists["conflicts"]) == ([".envrc"], ["at odds", "at odds too"])
    assert (lists["stays"], lists["never"], lists["deleted"]) == (["gone there", "left"], ["out"], ["emptyish", "gone"])
    assert (lists["taken"][:2], len(lists["taken"]), lists["undone"]) == (["a", "bad\nname"], 10, [])
    assert lists["look_at"] == [".envrc", "sub/.gitignore", "tool", "was a folder"]
    assert set().union(*lists_of(Plan()).values()) == set()


def test_what_could_not_be_fetched() -> None:
    """It is named, with the reason of the first; the rest was applied."""
    assert not_fetched(PLAN) is None
    missing = Plan((planned("x\ny", PathOutcome.UNFETCHED, reason="no room here"), planned("z", PathOutcome.UNFETCHED)))
    assert str(not_fetched(missing)).startswith("not applied: x\\ny, z (no room here): run `syncd apply` again")


RUN = (
    "Makefile sub/makefile .github/workflows/x.yml deep/er/.envrc .ENVRC .gitattributes sub/.gitmodules "
    ".claude/settings.local.json sub/CLAUDE.md AGENTS.md .mcp.json .cursor/mcp.json .gemini/settings.json "
    ".codex/config.toml .zed/tasks.json mise.toml mise.local.toml .exrc .nvim.lua .dir-locals.el .gdbinit "
    "lib/x.pth usercustomize.py pyproject.toml .pnpmfile.cjs .yarn/releases/yarn-4.cjs "
    ".yarn/plugins/@y/p.cjs .forgejo/workflows/x.yml .gitea/workflows/x.yml .cargo/config lefthook.yaml "
    "eslint.config.mjs"
)
DECIDE = ".gitignore sub/.syncdignore sub/.GitIgnore .worktreeinclude"
NEITHER = (
    "mise.md lefthook src/cursor/mcp.json docs/pyproject.md eslint.config yarn/releases/x agents.py "
    "sub/.worktreeinclude gitignore .gitignore/x my.envrc.md src/main.py"
)


@pytest.mark.parametrize("path", [*RUN.split(), *DECIDE.split(), *NEITHER.split()])
def test_what_to_look_at(path: str) -> None:
    """At any depth and in any letter case, what runs by itself, and what decides which paths leave."""
    assert (runs_automatically(path), decides_what_is_sent(path)) == (path in RUN.split(), path in DECIDE.split())
