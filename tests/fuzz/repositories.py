"""The repository that the workspace lies in, what `apply --branch` tells, and what becomes of commits.

syncd changes nothing in that repository, byte for byte, but for the objects and the one reference of `apply --branch`.
A branch that it made holds what the agent has in the sandbox, and each of its commits; what is missing is named.
In a sandbox that lives and was not emptied, all that the agent committed can be reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncd.sandbox.provider import acquired_of
from syncd.store.state_db import StateDb
from tests.fuzz.git import AGENT, Leaf, changed, git, leaves, listed, unreachable
from tests.fuzz.model import FOLDER, Entry, shown
from tests.fuzz.operations import tree
from tests.fuzz.scenario import Step

if TYPE_CHECKING:
    from tests.fuzz.checker import Checker, TrackedSandbox

_PERSON = "Person"
_OBJECTS = "objects/"


class HomeRepository:
    """The repository of one workspace: in it, or in the folder above it."""

    def __init__(self, workspace: Path, checker: Checker, state_folder: str) -> None:
        self._state_folder = state_folder
        self._workspace = workspace
        self._checker = checker
        self._top = workspace
        self._prefix = ""
        self._known: dict[str, bytes] = {}
        self._objects_may_come = False  # from a git that outlives its killed command, too
        self.is_made = False

    # -- what a person does

    def make(self, where: str) -> None:
        """Make it "in" or "above" the workspace; all that is there by now is committed, and there is a stash."""
        if where == "above":
            self._top, self._prefix = self._workspace.parent, f"{self._workspace.name}/"
        git(self._top, "init", "-q", "-b", "main", "--template=")
        for key in ("user.name", "user.email"):
            git(self._top, "config", key, _PERSON)
        self.is_made = True
        self.commit("commit")
        git(self._top, "update-ref", "-m", "stashed", "--create-reflog", "refs/stash", "HEAD")
        self._known = self._look()

    def commit(self, how: str) -> None:
        """Put all into the index, and commit it, or not."""
        if self.is_made and self._workspace.is_dir():
            with contextlib.suppress(OSError):  # it cannot take a FIFO
                git(self._top, "add", "-A", "--ignore-errors", "--", str(self._workspace))
            if how == "commit":
                git(self._top, "commit", "-q", "--allow-empty", "-m", "a person's", name=_PERSON)
            self._known = self._look()

    # -- what must hold

    def check(self, step: Step, ended: tuple[int | None, dict[str, Any]], printed: list[str], *, alone: bool) -> None:
        """Check what a command told, and what it changed. `alone`: nothing was changed on either side meanwhile."""
        if not self.is_made or not self._workspace.is_dir():
            return
        code, told = ended
        checker, is_branch = self._checker, step.name == "branch"
        was_made = is_branch and f"refs/heads/{step.args[0]}" in self._known  # then nothing was new, or it was refused
        self._objects_may_come |= is_branch
        self.check_unchanged(step.args[0] if is_branch and code in (0, 75, None) else "")
        live = checker.live
        if live is not None and self._asked() not in (None, live.sandbox.id):
            return  # a command asks the one that is named or acquired, before the daemon has moved to it
        is_told = code == 0 or (code == 75 and told)  # all but what could not be fetched, which is named
        if not is_told or not alone or live is None or not (live.sandbox.workspace / ".git").is_dir():
            return
        text = "\n".join(printed)
        if is_branch:
            checker.figures["branches made"] += 1
            # What the agent did since a look that followed it comes with the next one.
            if not step.args[1] and "as of " not in text:
                made = "" if was_made else step.args[0]
                checker.lost += self._missing_on(made, live, told, text)

    def _asked(self) -> str | None:
        """Return the sandbox that a command asks."""
        config = self._checker.settings.current
        acquired = acquired_of(config, self._state_folder)
        return acquired.sandbox_id if config.sandbox.id is None and acquired is not None else config.sandbox.id

    def check_unchanged(self, made: str = "") -> None:
        """Check that nothing was changed but by the making of that branch."""
        if not self.is_made or not self._workspace.is_dir():
            return
        now, follows = self._look(), self._checker.settings.follows
        allowed = {f"refs/heads/{made}", f"logs/refs/heads/{made}"} if made else set()
        for name in sorted(now.keys() | self._known.keys()):
            may_be_new = name in allowed or ((self._objects_may_come or follows) and name.startswith(_OBJECTS))
            if now.get(name) != self._known.get(name) and not (may_be_new and name not in self._known):
                self._checker.lose(f"{name!r} of the repository at home was changed by syncd")
        self._known = now

    def check_commits(self) -> None:
        """Check that what the agent committed is still in the sandbox."""
        for tracked in self._checker.all_live():
            for each in unreachable(tracked.sandbox.workspace, tracked.model.tips):
                self._checker.lose(f"the agent's commit {each[:10]} cannot be reached any more in the sandbox")

    def _is_recorded(self, live: TrackedSandbox) -> bool:
        """True if syncd knows of the repository there: not so if it died before it noted that it made one."""
        with closing(StateDb(self._state_folder)) as db:
            owners = db.rows("SELECT o.name FROM owners o JOIN records r ON r.owner = o.number WHERE r.name = 'home'")
        return any(name.endswith(f" {live.sandbox.id}") for (name,) in owners)

    def _missing_on(self, name: str, live: TrackedSandbox, told: dict[str, Any], text: str) -> Iterator[str]:
        """Yield what the branch lacks or has too much of; without a name none was made."""
        checker, account, there = self._checker, self._checker.account, tree(live.sandbox.workspace)
        is_excluded = checker.is_excluded()
        named = {path for key in ("never", "stays") for path in told.get(key, ())}

        def is_excused(path: str) -> bool:
            return path in named or is_excluded(path, False)

        is_made = name != "" and (self._top / ".git/refs/heads" / name).exists()  # not where the agent did nothing
        tip = leaves(self._top, name, self._prefix) if is_made else {}
        for path in sorted(tip.keys() | there.keys()):
            entry = there.get(path, FOLDER)
            is_agents = live.model.agent.get(path) == entry and account.is_agents_own(path, entry)
            is_agents = is_agents and (is_made or not live.model.is_at_home(path))
            is_agents = is_agents and (path, entry) not in checker.decided
            if is_excused(path) or tip.get(path) == _leaf(entry):
                continue
            if is_agents:
                yield f"the agent's {path!r} ({shown(entry)}) is {tip.get(path)} on the branch, and not named"
            elif entry == FOLDER and not os.path.lexists(self._workspace / path):
                yield f"{path!r} is on the branch, and on neither side"
        if "changes are one commit" in text or not self._is_recorded(live):
            return  # the commits are named as what could not be fetched, or syncd does not know of them
        made = {subject: commit_id for commit_id, subject, _ in (listed(self._top, name) if is_made else ())}
        for commit_id, subject in _agents_commits(live.sandbox.workspace):
            self._checker.figures["commits on branches"] += 1
            if subject not in made:
                yield f"the agent's commit {subject!r} is not on the branch"
                continue
            has = leaves(self._top, made[subject], self._prefix)
            for path, leaf in changed(live.sandbox.workspace, commit_id).items():
                is_unread = f"its content in the agent's commit {commit_id[:10]} could not be fetched" in text
                if has.get(path) != leaf and not is_excused(path) and not is_unread:
                    yield f"{path!r} is {leaf} in the agent's {subject!r}, and {has.get(path)} on the branch"

    def _look(self) -> dict[str, bytes]:
        """Return all files of the repository but what follows the agent; of its objects, the names.

        A git whose command was killed may outlive it, and removes what it was writing.
        """
        top, found = self._top / ".git", {}
        for folder, _, names in os.walk(top):
            for each in names:
                place = Path(folder, each)
                name = str(place.relative_to(top))
                if not name.startswith("refs/syncd/") and not each.startswith("tmp_obj_"):
                    found[name] = b"" if name.startswith(_OBJECTS) else place.read_bytes()
        return found


def _agents_commits(workspace: Path) -> list[tuple[str, str]]:
    """Return id and subject of the agent's commits on its HEAD since what was sent, the oldest first."""
    found = listed(workspace, "HEAD", "^refs/syncd/home")
    return [(commit_id, subject) for commit_id, subject, committer in found if committer == AGENT]


def _leaf(entry: Entry) -> Leaf | None:
    match entry:
        case ("file", is_executable, bytes(content)):
            return "100755" if is_executable else "100644", _blob(content)
        case ("link", target):
            return "120000", _blob(os.fsencode(str(target)))
    return None


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
