"""Removes in the sandbox what is gone at home, by the documented way to run a program there.

The program (`removal_script`) and its list go up as an execution's archive; what it prints says what became of each
path. Nothing but the listed paths is touched, and of those only what still is as it was uploaded.
"""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from syncd.base.clock import Clock
from syncd.base.interrupt import Interrupt
from syncd.base.text import one_line
from syncd.effects import removal_script
from syncd.effects.api import Api
from syncd.effects.bucket import check_url
from syncd.effects.failure import StepFailed
from syncd.effects.http import Exchanger, NoAnswer
from syncd.policy.manifest import Entry, Kind
from syncd.policy.removal import Versions
from syncd.policy.verdict import Step, Verdict, judge_bucket

_READ_S = 60.0
# The program is done in a moment; a sandbox that is busy may begin with it late.
_PATIENCE_S = 120.0
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 2.0
_LARGEST_LOG = 64 << 20
# So that the list, of some 200 bytes a path, stays a small upload.
MOST_AT_ONCE = 20_000


@dataclass
class Removal:
    """What became of the paths. `changed`: by someone over there, so they stay; `failed`: with the reason."""

    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Remover:
    """Removes paths of one sandbox's workspace."""

    def __init__(self, api: Api, exchanger: Exchanger, clock: Clock, interrupt: Interrupt) -> None:
        self._api = api
        self._exchanger = exchanger
        self._clock = clock
        self._interrupt = interrupt

    def remove(self, doomed: Versions, check: Callable[[], None] = lambda: None) -> Removal:
        """Remove these paths, in their order; `check` is called all the time. Raises `StepFailed`, `Stop`."""
        removal = Removal()
        paths = list(doomed)
        for start in range(0, len(paths), MOST_AT_ONCE):
            part = paths[start : start + MOST_AT_ONCE]
            for path, fate in zip(part, self._run([(path, doomed[path]) for path in part], check), strict=True):
                if fate in ("removed", "absent", "kept"):  # what keeps a directory is someone else's
                    removal.removed.append(path)
                elif fate == "changed":
                    removal.changed.append(path)
                else:
                    removal.failed[path] = fate.removeprefix("failed: ")
        return removal

    def _run(self, part: list[tuple[str, list[Entry]]], check: Callable[[], None]) -> list[str]:
        name = f"syncd-{secrets.token_hex(8)}"
        url = self._api.execution_upload_url(name)
        check_url(Step.DELETE, url)
        self._put(url, _archive(part, name))
        self._api.execute(name)
        return _fates(self._printed(name, check), name, len(part))

    def _put(self, url: str, archive: bytes) -> None:
        headers = {"Content-Type": "application/gzip", "Content-Length": str(len(archive))}
        try:
            answer = self._exchanger.exchange("PUT", url, headers=headers, read_s=_READ_S, content=archive)
        except NoAnswer as failure:
            raise StepFailed(Step.DELETE, Verdict.OFFLINE, f"the list was not uploaded ({failure})") from None
        if answer.status != 200:
            verdict = judge_bucket(answer.status, "")
            verdict = Verdict.RETRY if verdict is Verdict.FRESH_LEASE else verdict
            raise StepFailed(Step.DELETE, verdict, f"the bucket answered the list's upload with {answer.status}")

    def _printed(self, name: str, check: Callable[[], None]) -> str:
        """All that the program printed, once it has ended."""
        printed, cursor = "", 0
        wait_s = _FIRST_LOOK_S
        ends_s = self._clock.monotonic_s() + _PATIENCE_S
        while True:
            seen = self._api.execution_logs(name, cursor)
            printed += seen.logs
            if seen.status in ("completed", "failed") and seen.cursor <= cursor:
                return printed
            advanced = seen.cursor > cursor
            cursor = max(cursor, seen.cursor)
            if self._clock.monotonic_s() > ends_s or len(printed) > _LARGEST_LOG:
                raise StepFailed(
                    Step.DELETE, Verdict.RETRY, f"removing files there takes longer than {_PATIENCE_S:.0f} s"
                )
            check()
            if not advanced:
                with self._interrupt.region():
                    self._clock.sleep(wait_s)
                wait_s = min(_LONGEST_LOOK_S, 2 * wait_s)


def _archive(part: list[tuple[str, list[Entry]]], word: str) -> bytes:
    """The program and its list. `word` marks its lines, whatever else prints over there."""
    asked = {"word": word, "items": [_item(path, entries) for path, entries in part]}
    with open(removal_script.__file__, "rb") as file:
        files = {"main.py": file.read(), "removals.json": json.dumps(asked).encode("ascii")}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def _item(path: str, entries: list[Entry]) -> dict[str, Any]:
    return {"path": base64.b64encode(os.fsencode(path)).decode(), "versions": [_version(entry) for entry in entries]}


def _version(entry: Entry) -> dict[str, Any]:
    version: dict[str, Any] = {"kind": entry.kind.value}
    if entry.kind is Kind.SYMLINK:
        version["target"] = base64.b64encode(os.fsencode(entry.target)).decode()
    elif entry.kind is Kind.FILE:
        # Of content that is not known nobody can say that it is unchanged: no digest is equal to none.
        version |= {"size": entry.size_bytes, "sha256": entry.digest.hex()}
    return version


def _fates(printed: str, word: str, count: int) -> list[str]:
    """What became of each, in order. Raises `StepFailed` where the program did not come to its end."""
    fates: dict[int, str] = {}
    done = False
    for line in printed.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        match said:
            case [str(who), int(index), str(fate)] if who == word and 0 <= index < count:
                fates[index] = fate
            case [str(who), "done"] if who == word:
                done = True
    if not done or len(fates) != count:
        last = printed.strip().splitlines()[-1:] or ["nothing was printed"]
        message = f"removing files there did not come to its end ({one_line(last[0], 120)})"
        raise StepFailed(Step.DELETE, Verdict.RETRY, message)
    return [fates[index] for index in range(count)]
