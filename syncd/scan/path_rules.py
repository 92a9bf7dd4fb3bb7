"""Tells if the rules would leave out a path, also one that does not exist here yet."""

from __future__ import annotations

from syncd.core.errors import WorkspaceError
from syncd.scan.limits import too_long
from syncd.selection import safe_open
from syncd.selection.ignore_files import read_ignore_files, read_rules_outside
from syncd.selection.selection import Scope, Selection


class PathRules:
    """The rules of one workspace, read as they are now; a folder's rules are read once."""

    def __init__(self, workspace: str, selection: Selection, personal_excludes: str = "") -> None:
        self._workspace = workspace
        try:
            outer = read_rules_outside(workspace, selection, personal_excludes).rules
        except OSError as failure:
            raise WorkspaceError(
                f"the rules of git cannot be read ({failure.strerror})", "let your user read them"
            ) from None
        self._scopes: dict[str, Scope | None] = {}
        self._outer = selection.root(outer)

    def leave_out(self, path: str, is_dir: bool) -> bool:
        """True if the rules leave out the path, or a folder above it. Raises `WorkspaceError`."""
        parent, _, name = path.rpartition("/")
        scope = self._scope(parent)
        return scope is None or too_long(path) or not scope.decide(name, is_dir).included

    def _scope(self, folder: str) -> Scope | None:
        """The rules in that folder; None if it is left out itself."""
        if folder not in self._scopes:
            if not folder:
                scope: Scope | None = self._outer
            else:
                parent, _, name = folder.rpartition("/")
                scope = self._scope(parent)
                if scope is not None:
                    scope = scope.enter(name) if scope.decide(name, True).included else None
            self._scopes[folder] = None if scope is None else self._with_files(folder, scope)
        return self._scopes[folder]

    def _with_files(self, folder: str, scope: Scope) -> Scope:
        with safe_open.DirCursor(safe_open.open_workspace(self._workspace)) as cursor:
            try:
                descriptor, _ = cursor.parent_of(f"{folder}/." if folder else ".")
                return scope.with_files(read_ignore_files(descriptor, scope.ignore_files))
            except OSError:  # it does not exist here, or cannot be read
                return scope
