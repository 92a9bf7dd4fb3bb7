"""Looks that ask for changes alone find what looks at everything find, whatever an agent does between them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.sandbox import program
from syncd.sandbox.look_request import LookRequest, LookResult
from syncd.sandbox.protocol import Bounds, decoded, look_result, look_values
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.sync.agent_work import FoundWork, lacking
from syncd.sync.following import follow_request, followed, request_since, since_look, with_gone
from tests.looks import a_file

PATHS = ("a", "b", "d/a", "d/b", "d/e/a", "d/e/b", "f/a", "x.log")
FOLDERS = ("", "d", "d/e", "f", "g")


def _leaves_out(path: str, _is_dir: bool) -> bool:
    return path.endswith(".log")


class There:
    """A workspace there, what was put there, and the looks at it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.top = folder / "workspace"
        entries: dict[str, Entry] = {name: Entry(Kind.DIRECTORY, 0o755) for name in ("d", "d/e", "f")}
        for path in PATHS[:-1]:
            (self.top / path).parent.mkdir(parents=True, exist_ok=True)
            (self.top / path).write_bytes(path.encode())
            entries[path] = a_file(path.encode())
        self.content = SandboxContent(Manifest(entries))
        self._runs = 0
        monkeypatch.setenv("AGENT_WORKSPACE", str(self.top))
        monkeypatch.setattr(program, "_within", lambda _, act: act())  # a test has its own alarm

    def look(self, request: LookRequest) -> LookResult:
        self._runs += 1
        (own := self.folder / f"run{self._runs}").mkdir()
        asked = json.loads(json.dumps({"look": look_values(request, 60.0, 0.0)}))
        answer = json.dumps(program.answer(asked, str(own))).encode()
        shutil.rmtree(own)
        return look_result(decoded(answer, Bounds.of_look(request)), request)

    def act(self, random: Random) -> None:
        """Do something that an agent may do."""
        one, other = (self.top / random.choice(PATHS) for _ in range(2))
        folder = self.top / random.choice(FOLDERS[1:])
        content = random.choice((b"1", b"22", one.name.encode()))
        acts: tuple[Callable[[], object], ...] = (
            lambda: one.write_bytes(content),
            lambda: one.write_bytes(content),
            lambda: one.chmod(random.choice((0o644, 0o755))),
            lambda: one.rename(other),
            lambda: os.link(one, other),
            one.unlink,
            lambda: one.symlink_to("a"),
            folder.mkdir,
            lambda: folder.rename(self.top / random.choice(FOLDERS)),
            lambda: shutil.rmtree(folder),
            lambda: os.utime(one, ns=(1, 1)),
        )
        try:
            random.choice(acts)()
        except OSError:
            return


def _facts(there: dict[str, SeenEntry] | object) -> dict[str, tuple[object, ...]]:
    assert isinstance(there, dict)
    return {
        path: (entry.kind, entry.mode if entry.kind is Kind.FILE else 0, entry.digest, entry.target)
        if entry.kind is not Kind.ABSENT
        else (ABSENT.kind,)
        for path, entry in there.items()
    }


@pytest.mark.parametrize("seed", range(12))
def test_what_has_changed_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Files are written in place, replaced, moved, linked, deleted, folders come, go and move, times are set back."""
    random, there = Random(seed), There(tmp_path, monkeypatch)
    known, since, asked_since = FoundWork(0.0, {}), None, 0
    for _ in range(25):
        for _ in range(random.choice((0, 1, 1, 2, 4))):
            there.act(random)
        whole = follow_request(there.content, known, _leaves_out)
        request = None if since is None else request_since(whole, there.content, known.there, since)
        told = None if request is None else with_gone(there.look(request), known.there, there.content)
        result = there.look(whole)
        expected, _ = followed(known, result, there.content, (), _leaves_out, at_s=1.0)
        if told is not None:
            asked_since += 1
            result = told
        known, _ = followed(known, result, there.content, (), _leaves_out, at_s=1.0)
        assert _facts(known.there) == _facts(expected.there)
        is_fetched = not lacking(known.there, there.content, _leaves_out)
        since = since_look(whole, result, there.content.base, known.there, 0.0) if is_fetched else None
    assert asked_since > 5
