"""The files that hold a secret, remembered while they are what they were: no look reads them again for that."""

from __future__ import annotations

from collections.abc import Collection

from syncd.base.problem import Problem
from syncd.effects.pack import Packed
from syncd.effects.scan import Scan
from syncd.policy.manifest import Entry
from syncd.policy.secret_contents import held_back


class HeldBack:
    """Those of one workspace."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Entry, Problem]] = {}

    def __len__(self) -> int:
        return len(self._files)

    def leave_out(self, scan: Scan) -> list[Problem]:
        """Take them out of the scan; the warnings about them. What was found too young to be believed is looked at."""
        still = {}
        for path, (entry, problem) in self._files.items():
            now = scan.manifest.get(path)
            if now is not None and now.stamp == entry.stamp and now.size_bytes == entry.size_bytes:
                del scan.manifest[path]
                scan.unread.add(path)  # that the search finds something, rightly or not, deletes nothing anywhere
                still[path] = entry, problem
        self._files = still
        return [problem for _, problem in still.values()]

    def note(self, packed: Packed, sent: Collection[str]) -> list[Problem]:
        """Remember what packing held back; the warnings. The sandbox has versions of the paths that were `sent`."""
        problems = []
        for path, (entry, secret) in packed.held_back.items():
            problem = held_back(path, secret, sent=path in sent)
            self._files[path] = entry, problem
            problems.append(problem)
        return problems
