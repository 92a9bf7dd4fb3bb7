"""What a hostile sandbox reports costs little memory, and ends with one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from syncd.archive.exported_files import ExtractedFiles
from syncd.model.entry import Entry
from syncd.remote.failure import StepFailed
from syncd.sandbox.executions import report_in
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest
from syncd.sandbox.program import printed
from syncd.sandbox.protocol import REPOSITORY_BOUNDS, Bounds, RepositoryState, decoded, look_result, told
from tests.component.program_rig import PURPOSE, running
from tests.unit.test_protocol import GONE, REQUEST, TEXT, blocked, differs, read, report, row

_MIB = 1 << 20
_LEFT_BYTES = 256 * _MIB  # beyond what a process with the modules takes; values of 16 MiB of lists take 425
_SMALL = LookRequest({"a": LookItem((), LookAction.COMPARE)})
_WHOLE = LookRequest({}, find_new=True)
_SINCE = LookRequest({}, find_new=True, since=("a" * 64, 1))
_LONGEST = Bounds.of_look(_WHOLE).most_bytes // _MIB - 1
_LONG = 16
_ROW = b'["",0,0,0,"",-1,false]'
_MORE = "it says more than was asked for"

# What is asked, the size in MiB, the text with what is repeated in it, and the reason that is told.
LONG: dict[str, tuple[LookRequest | None, int, tuple[bytes, bytes, bytes], str]] = {
    "longer than any": (_SMALL, 64, (b'{"look":{"outcomes":[', b'["=",0],', b'["=",1]]}}'), "it is too long"),
    "longer than any with new paths": (
        _WHOLE,
        _LONGEST + 2,
        (b'{"look":{"pruned":[', b'"a",', b'"a"]}}'),
        "it is too long",
    ),
    "many outcomes": (_SMALL, 4, (b'{"look":{"outcomes":[', b'["=",0],', b'["=",1]]}}'), _MORE),
    "many rows": (_WHOLE, _LONG, (b'{"look":{"differing":[', _ROW + b",", _ROW + b"]}}"), _MORE),
    "many names": (_WHOLE, _LONG, (b'{"look":{"pruned":[', b'"a",', b'"a"]}}'), _MORE),
    "one new path again and again": (
        _WHOLE,
        _LONG,
        (b'{"look":{"new":{', b'"a":' + _ROW + b",", b'"a":' + _ROW + b"}}}"),
        _MORE,
    ),
    "names of one folder": (_SINCE, _LONG, (b'{"look":{"names":{"d":[', b'"a",', b'"a"]}}}'), _MORE),
    "one folder again and again": (_SINCE, _LONG, (b'{"look":{"names":{', b'"d":[],', b'"d":[]}}}'), _MORE),
    "lists": (_WHOLE, _LONG, (b"[", b"[],", b"[]]"), "Expected `object`, got `array`"),
    "lists in lists": (_WHOLE, _LONG, (b'{"look":{"new":', b"[", b"]"), "Expected `object`, got `array` - at `$.look"),
    "numbers": (_WHOLE, _LONG, (b'{"look":{"pruned":[', b"1,", b"1]}}"), "Expected `str`, got `int`"),
    "objects": (_WHOLE, _LONG, (b'{"look":{"outcomes":[', b"{},", b"{}]}}"), "Expected `array`, got `object`"),
    "one number": (_WHOLE, 4, (b'{"ended_s":', b"9", b"}"), "Number out of range"),
    "one name": (_WHOLE, _LONGEST, (b'{"look":{"pruned":["', b"a", b'"]}}'), "Expected `str` of length <= 65536"),
    "spaces": (_WHOLE, _LONG, (b"{", b" ", b"}"), "Object missing required field"),
    "commits": (None, 1, (b'{"log":{"state":"done","commits":[', b'"a",', b'"a"]}}'), _MORE),
    "lists of commits": (
        None,
        1,
        (b'{"log":{"state":"done","commits":[', b"[],", b"[]]}}"),
        "Expected `str`, got `array`",
    ),
    "more commits than any": (None, 64, (b'{"log":{"commits":[', b'"a",', b'"a"]}}'), "it is too long"),
}


def _written(path: Path, size_mib: int, parts: tuple[bytes, bytes, bytes]) -> str:
    """Write a report, and return the line of the log that says so."""
    if size_mib > _LONGEST:  # nobody reads it
        return f"word={size_mib * _MIB} {'0' * 64} \n"
    begin, unit, end = parts
    block = unit * (_MIB // len(unit))
    digest, length = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in (begin, *([block] * size_mib), end):
            file.write(piece)
            digest.update(piece)
            length += len(piece)
    return f"word={length} {digest.hexdigest()} \n"


def _read(folder: Path, name: str) -> str:
    request, size_mib, parts, _ = LONG[name]
    bounds = REPOSITORY_BOUNDS if request is None else Bounds.of_look(request)
    line = _written(folder / "report", size_mib, parts)
    try:
        found = decoded(
            report_in(running("word", bounds), line, lambda _: ExtractedFiles({"report.json": str(folder / "report")})),
            bounds,
        )
        if request is None:
            told(found.log)
        else:
            look_result(found, request)
    except ValueError as failure:
        return PURPOSE.invalid(str(failure)).message
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
    program = f"import sys; from pathlib import Path; from {__name__} import LONG, _measured\n"
    program += "for name in LONG: _measured(Path(sys.argv[1]), name)"
    words = [sys.executable, "-c", program, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(words, env=environment, capture_output=True, check=True)
    found = {name: (told, kib) for name, told, kib in map(json.loads, ran.stdout.splitlines())}
    assert found.keys() == LONG.keys()
    for name, (_, _, _, why) in LONG.items():
        told, kib = found[name]
        assert told.startswith(f"the report of the program is invalid ({why}"), (name, told)
        assert "\n" not in told
        assert kib * 1024 < _LEFT_BYTES, (name, kib)


LOOKS: dict[str, Any] = {
    "nothing": {},
    "a list": [],
    "a text": "report",
    "no end": {key: value for key, value in report().items() if key != "mark"},
    "more fields": {**report(), "more": 1},
    "many outcomes": report(f"{GONE}="),
    "outcomes without end": report([["=", 2], ["r", 1 << 39]]),
    "negative outcomes": report([["=", 9], ["r", -2]]),
    "outcome of three": report([["=", 2, 0], ["r", 2], ["=", 3]]),
    "unknown outcome": report("==rr==x"),
    "outcome of a number": report([[0, 7]]),
    "removal unseen": report("==ru==="),
    "removal missing": report("==rm==="),
    "kept what was compared": report("=krr==="),
    "failed what was compared": report("=frr===", failed=["why"]),
    "failed without reason": report("==rf==="),
    "reason without failure": report(failed=["why"]),
    "failed with a number": report("==rf===", failed=[3]),
    "differs without row": report("d=rr==="),
    "row without difference": report(differing=[row()]),
    "missing what was compared": report("m=rr==="),
    "differs where only existence counts": report("==rrd==", differing=[row()]),
    "differs where only the place counts": report("==rr=d=", differing=[row()]),
    "copy of what was to remove": report("==dr===", differing=[row(copy=0)]),
    "copy without digest": differs(row(digest="", copy=0)),
    "one copy for two": {**differs(row(copy=0)), "new": {"n": row(copy=0)}},
    "copy below zero": differs(row(copy=-2)),
    "long digest": differs(row(digest=TEXT * 2)),
    "no base64": differs(row(digest="!" * 44)),
    "no ASCII": differs(row(digest="é" * 44)),
    "digest of a number": differs(row(digest=5)),
    "unstable as a number": differs(row(unstable=1)),
    "unknown kind": differs(row("x")),
    "negative size": differs(["f", 0o644, -1, 1, TEXT, -1, False]),
    "vast size": differs(["f", 0o644, 1 << 70, 1, TEXT, -1, False]),
    "mode": differs(["f", 0o4755, 1, 1, TEXT, -1, False]),
    "short row": differs(["f"]),
    "long row": differs(row("l", "", -1, False, "t", "more")),
    "target of a number": differs(row("l", "", -1, False, 5)),
    "target with NUL": differs(row("l", "", -1, False, "a\0b")),
    "no row": differs(5),
    "no list": {**differs(row()), "differing": 5},
    "new as a list": report(new=[row()]),
    **{
        f"new {path[:20]}".replace("\0", " NUL "): report(new={path: row()})
        for path in (
            *("", "/etc/passwd", "../out", "d/../../out", "./n", ".", "..", "d//n", "d/", "a\0b"),
            *(".git/hooks/x", "d/.GIT", "n" * 70000),
        )
    },
    "blocked and only compared": blocked([0, "f"], outcomes="=brr==="),
    "blocked and to remove": blocked([0, "f"], outcomes="==br==="),
    "blocked above the workspace": blocked([2, "f"]),
    "blocked below its place": blocked([-1, "f"]),
    "blocked uncounted": blocked(),
    "blocked by the unknown": blocked([0, "x"]),
    "blocked by commits where none were asked for": blocked([0, "g"]),
    "blocked by a path": blocked(["d", "f"]),
    "pruned outside": report(pruned=["../node_modules"]),
    "pruned repository outside": report(pruned=["../.git"]),
    "pruned number": report(pruned=[5]),
    "mark of a text": report(mark="mark"),
    "mark of numbers": report(mark=[1, 2]),
    "short mark": report(mark=["a" * 63, 1]),
    "mark without end": report(mark=["a" * 64, 1, 2]),
    "mark before all times": report(mark=["a" * 64, -1]),
    "mark after all times": report(mark=["a" * 64, 1 << 63]),
    "names where none were asked for": report(names={".": ["a"]}),
}
# In the answer to a request for what has changed since an earlier look.
NAMES: dict[str, Any] = {
    "names as a list": [["d", ["a"]]],
    "names of no list": {"d": "a"},
    "names of numbers": {"d": [5]},
    "name with NUL": {"d": ["a\0b"]},
    **{
        f"names in {path[:20]}": {path: ["a"]}
        for path in ("", "..", "../out", "/etc", "d/../../out", "d//n", "n" * 70000)
    },
}


@pytest.mark.parametrize("values", LOOKS.values(), ids=list(LOOKS))
def test_a_hostile_look_is_none(values: Any) -> None:
    """One invalid value makes the whole report worthless."""
    assert read(report()).removed == ("a", "b")
    with pytest.raises(ValueError, match=r"."):
        read(values)


@pytest.mark.parametrize("names", NAMES.values(), ids=list(NAMES))
def test_hostile_names_are_none(names: Any) -> None:
    """As above."""
    request = replace(REQUEST, since=("a" * 64, 1))
    assert read(report(names={"d": ["a"]}), request).names == {"d": {"a"}}
    with pytest.raises(ValueError, match=r"."):
        read(report(names=names), request)


_ID = "1" * 40
OF_REPOSITORIES: list[dict[str, Any]] = [
    {},
    {"look": None},
    *(
        {"commit": each}
        for each in (
            [],
            {},
            {"home": _ID},
            {"state": "best", "home": _ID},
            {"state": ["done"], "home": _ID},
            {"state": "done", "home": "A" * 40},
            {"state": "done", "home": f"{_ID}\n"},
            {"state": "done", "home": "a" * 41},
            {"state": "done", "home": "--all"},
            {"state": "done", "home": _ID, "more": 1},
            {"state": "failed", "why": "x" * 65537},
            {"state": "failed", "why": {"a": "b"}},
        )
    ),
    *(
        {"log": {"state": "done", "commits": [each]}}
        for each in ("", "1" * 39, f"{_ID} ", f"{_ID} {_ID} {_ID}", f"{_ID}\n", "--all", "1" * 64)
    ),
    {"log": {"state": "done", "commits": [_ID] * 1001}},
    *(
        {"log": {"state": "done", "file": each}}
        for each in (["1", ""], [-1, ""], [3 << 30, ""], [1], [1, "A" * 64], [1, "a" * 64 + "\n"])
    ),
    {"log": {"state": "done", "told_bytes": 1 << 40}},
    {"log": {"state": "done", "others": "x"}},
    {"log": {"state": "done", "unlisted": 1 << 50}},
    {"log": {"state": "done", "more": 1}},
    {"more": 1},
]


@pytest.mark.parametrize("values", OF_REPOSITORIES, ids=lambda each: json.dumps(each)[:60])
def test_a_hostile_report_of_a_repository(values: dict[str, Any]) -> None:
    """Nothing of it is believed."""
    honest = decoded(json.dumps({"ended_s": 1, "log": {"state": "done"}}).encode(), REPOSITORY_BOUNDS)
    assert told(honest.log).state is RepositoryState.DONE
    with pytest.raises(ValueError, match=r"."):
        told(decoded(json.dumps({"ended_s": 1, **values}).encode(), REPOSITORY_BOUNDS).log)


def test_a_line_among_others(tmp_path: Path) -> None:
    """Other output may come before and after it, and lines end in another way; it must be whole."""
    bounds = Bounds(5_000)
    line = printed("word", {"a": ["text"] * 500}, str(tmp_path)).splitlines(keepends=True)[0]
    assert json.loads(report_in(running("word", bounds), f"warning: \udcff\r\n{line[:-1]}\r\nmore\n", None))["a"]
    for cut in (line.replace("text", "tex", 1), line.replace("text", "TEXT", 1), line.replace("text", "\udcff", 1)):
        with pytest.raises(StepFailed, match="the log lacks a part of the report of the program"):
            report_in(running("word", bounds), cut, None)
    for cut, why in ((line[:60], line[:60]), ("", "nothing was printed"), (f"another{line}", "another")):
        with pytest.raises(StepFailed, match="the program did not come to its end") as caught:
            report_in(running("ward" if why == "another" else "word", bounds), cut, None)
        assert why[:100] in caught.value.message
    with pytest.raises(StepFailed, match="is invalid \\(it is too long\\)"):
        report_in(running("word", Bounds(9)), f"word=10 {'0' * 64} \n", None)


@pytest.mark.parametrize("kept_bytes", [100, 200, 400])
def test_a_log_that_is_cut(tmp_path: Path, kept_bytes: int) -> None:
    """Where its begin or its end is left, that tells what the file has to be."""
    bounds, folder = Bounds(5_000), str(tmp_path)
    lines = printed("word", {"a": ["text"] * 500}, folder)

    def extract(expected: Mapping[str, Entry]) -> ExtractedFiles:
        copy = tmp_path / "copy"
        shutil.copy(tmp_path / "report.json", copy)
        assert expected["report.json"].digest == hashlib.sha256(copy.read_bytes()).digest()
        return ExtractedFiles({"report.json": str(copy)})

    for cut in (lines[:kept_bytes], lines[-kept_bytes:]):
        assert json.loads(report_in(running("word", bounds), cut, extract))["a"]
