"""What a hostile sandbox reports costs little memory, and ends with one line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from syncd.archive.extraction import BadArchive
from syncd.remote import remote_job
from syncd.remote.failure import ApiStep, StepFailed
from syncd.remote.remote_job import ExtractedFiles, Purpose, RemoteJob, extract_files
from syncd.sandbox.look_encoding import most_bytes, report_of
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest
from syncd.sandbox.repository.agent_repository import commits_of

_MIB = 1 << 20
_LEFT_BYTES = 256 * _MIB  # beyond what a process with the modules takes; values of 16 MiB of lists take 425
_SMALL = LookRequest({"a": LookItem((), LookAction.COMPARE)})
_WHOLE = LookRequest({}, find_new=True)
_LONGEST = most_bytes(_WHOLE) // _MIB - 1
_LONG = 16
_ROW = b'["",0,0,0,"",-1,false]'

# What is asked, the size in MiB, the text with what is repeated in it, and the reason that is told.
REPORTS = {
    "longer than any": (_SMALL, 64, (b'{"outcomes":[', b'["=",0],', b'["=",1]]}'), "it is too long"),
    "longer than any with new paths": (_WHOLE, _LONGEST + 2, (b'{"pruned":[', b'"a",', b'"a"]}'), "it is too long"),
    "many outcomes": (_SMALL, 4, (b'{"outcomes":[', b'["=",0],', b'["=",1]]}'), "it says more than was asked for"),
    "many rows": (_WHOLE, _LONG, (b'{"differing":[', _ROW + b",", _ROW + b"]}"), "it says more than was asked for"),
    "many names": (_WHOLE, _LONG, (b'{"pruned":[', b'"a",', b'"a"]}'), "it says more than was asked for"),
    "one new path again and again": (
        _WHOLE,
        _LONG,
        (b'{"new":{', b'"a":' + _ROW + b",", b'"a":' + _ROW + b"}}"),
        "it says more than was asked for",
    ),
    "lists": (_WHOLE, _LONG, (b"[", b"[],", b"[]]"), "Expected `object`, got `array`"),
    "lists in lists": (_WHOLE, _LONG, (b'{"new":', b"[", b"]"), "Expected `object`, got `array` - at `$.new`"),
    "numbers": (_WHOLE, _LONG, (b'{"pruned":[', b"1,", b"1]}"), "Expected `str`, got `int`"),
    "objects": (_WHOLE, _LONG, (b'{"outcomes":[', b"{},", b"{}]}"), "Expected `array`, got `object`"),
    "one number": (_WHOLE, 4, (b'{"unlisted":', b"9", b"}"), "Integer value out of range"),
    "one name": (_WHOLE, _LONGEST, (b'{"pruned":["', b"a", b'"]}'), "Expected `str` of length <= 65536"),
    "spaces": (_WHOLE, _LONG, (b"{", b" ", b"}"), "Object missing required field"),
    "commits": (None, 1, (b'{"state":"done","commits":[', b'"a",', b'"a"]}'), "Expected `str` matching regex"),
    "lists of commits": (None, 1, (b'{"state":"done","commits":[', b"[],", b"[]]}"), "Expected `str`, got `array`"),
    "more commits than any": (None, 64, (b'{"commits":[', b'"a",', b'"a"]}'), "it is too long"),
}


def _written(path: Path, size_mib: int, parts: tuple[bytes, bytes, bytes]) -> str:
    """Write a report, and return the line of the log that says so."""
    if size_mib > _LONGEST:  # nobody reads it
        return f"word=file {size_mib * _MIB} {'0' * 64}\n"
    begin, unit, end = parts
    block = unit * (_MIB // len(unit))
    digest, length = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in (begin, *([block] * size_mib), end):
            file.write(piece)
            digest.update(piece)
            length += len(piece)
    return f"word=file {length} {digest.hexdigest()}\n"


def _read(folder: Path, name: str) -> str:
    request, size_mib, parts, _ = REPORTS[name]
    job = RemoteJob("word", Purpose(ApiStep.EXECUTION, "the program"), {})
    line = _written(folder / "report", size_mib, parts)
    extract = lambda _: ExtractedFiles({"report.json": str(folder / "report")})  # noqa: E731
    try:
        if request is None:
            job.report(line, commits_of, 2 * _MIB, extract)
        else:
            job.report(line, lambda text: report_of(text, request), most_bytes(request), extract)
    except StepFailed as failure:
        return failure.message
    return "it was read"


def _peak_kib() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def _measured(folder: Path, name: str) -> None:
    """Print what reading the report told, and how many KiB it took. The parent has what all of them need."""
    before = _peak_kib()
    if os.fork() == 0:
        print(json.dumps([name, _read(folder, name), _peak_kib() - before]), flush=True)
        os._exit(0)
    os.wait()


def test_a_hostile_report_costs_little_memory(tmp_path: Path) -> None:
    """Too long, too many values, or other types: each is refused with one line."""
    program = f"import sys; from pathlib import Path; from {__name__} import *; from {__name__} import _measured\n"
    program += "for name in REPORTS: _measured(Path(sys.argv[1]), name)"
    words = [sys.executable, "-c", program, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(words, env=environment, capture_output=True, check=True)
    found = {name: (told, kib) for name, told, kib in map(json.loads, ran.stdout.splitlines())}
    assert found.keys() == REPORTS.keys()
    for name, (_, _, _, why) in REPORTS.items():
        told, kib = found[name]
        assert told.startswith(f"the report of the program is invalid ({why}"), (name, told)
        assert "\n" not in told
        assert kib * 1024 < _LEFT_BYTES, (name, kib)


@pytest.mark.parametrize("count", [100, 101])
def test_a_zip_of_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """It is refused by the count of members in its list, before there is an object for each."""
    monkeypatch.setattr(remote_job, "_MOST_MEMBERS", 100)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        for number in range(count):
            archive.writestr(str(number), b"")
    if count == 100:
        extract_files(str(tmp_path / "zip"), {}, str(tmp_path / "x-"), 0, lambda: None)
        return
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", lambda *_: pytest.fail("an object was made"))
    with pytest.raises(BadArchive, match="it has more than 100 members"):
        extract_files(str(tmp_path / "zip"), {}, str(tmp_path / "x-"), 0, lambda: None)
