"""The assumptions: each row tries one in the sandbox, and returns in words what it found."""

from __future__ import annotations

import base64
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from msgspec import Struct

from syncd.core.checksum import crc32c
from syncd.core.clock import SystemClock
from tools.conformance.service import CLOCK, Answer, Service, Unexpected, archive, content_of, member

ROWS: list[Row] = []
_LONG = "n" * 255
_DEEP = "/".join(["d" * 100] * 12)
_ODD = "\udcff"
_KINDS = (
    member("plain"),
    member("program", mode=0o755),
    member("link", type=tarfile.SYMTYPE, linkname="plain"),
    member("empty", type=tarfile.DIRTYPE, mode=0o755),
    member(_LONG),
    member(f"{_DEEP}/f"),
    member(_ODD),
    member("case"),
    member("CASE"),
)
_REFUSED, _TAKEN = "is refused", "is taken"


class Row(Struct, frozen=True):
    """What is tried, what syncd assumes of it, and the trial, which returns what is found."""

    subject: str
    assumed: str
    trial: Callable[[Trial], str]


class Trial:
    """A sandbox of a service, with nothing in it that is missed. `profile` is what is known of the service so far."""

    def __init__(self, service: Service, pause_s: float, long_s: float) -> None:
        self.service = service
        self.pause_s = pause_s
        self.long_s = long_s
        self.profile: dict[str, Any] = {}

    @cached_property
    def kinds(self) -> dict[str, tarfile.TarInfo]:
        """The workspace, after an archive with one of each kind."""
        self.service.initialize(archive(*_KINDS)).ok()
        return self.service.tree()


def assumes(subject: str, assumed: str) -> Callable[[Callable[[Trial], str]], Callable[[Trial], str]]:
    """Make a function the trial of a row."""

    def added(trial: Callable[[Trial], str]) -> Callable[[Trial], str]:
        ROWS.append(Row(subject, assumed, trial))
        return trial

    return added


def found(row: Row, it: Trial) -> str:
    """Return what a row finds; where it cannot go on, why."""
    try:
        return row.trial(it)
    except (Unexpected, KeyError, ValueError, tarfile.TarError, OSError) as error:
        return it.service.redacted(str(error) if isinstance(error, Unexpected) else f"fails ({type(error).__name__})")


def _taken(answer: Answer) -> str:
    return _TAKEN if 200 <= answer.status < 300 else _REFUSED


def _status(answer: Answer) -> str:
    return f"is answered with {answer.status}"


# -- answers


@assumes("a sandbox that there is not", "is answered with 404")
def _unknown(it: Trial) -> str:
    return _status(it.service.ask("GET", "/00000000-0000-0000-0000-000000000000"))


@assumes("a key that is wrong", "is answered with 401 or 403")
def _wrong_key(it: Trial) -> str:
    answer = it.service.own("GET", headers={"Authorization": "Bearer not-a-key"})
    return "is answered with 401 or 403" if answer.status in (401, 403) else _status(answer)


@assumes("a body that is wrong", "is answered with 422, and detail is a list")
def _wrong_body(it: Trial) -> str:
    answer = it.service.own("POST", "/execute", json={})
    return f"{_status(answer)}, and detail is a {type(answer.body.get('detail')).__name__}"


@assumes("the clock, by the Date of an answer", "agrees within a minute")
def _clock(it: Trial) -> str:
    told = parsedate_to_datetime(it.service.own("GET").headers["Date"]).timestamp()
    ahead_s = told - CLOCK.wall_s()
    return "agrees within a minute" if abs(ahead_s) < 60 else f"is {ahead_s:.0f} s ahead"


@assumes("ten requests in a row", "are answered")
def _burst(it: Trial) -> str:
    for number in range(10):
        answer = it.service.own("GET", tries=1)
        if answer.status != 200:
            told = answer.headers.get("Retry-After")
            return f"are refused from number {number + 1} on, with {answer.status}, Retry-After: {told}"
    return "are answered"


# -- uploads


@assumes("an upload URL", "lives for 10 minutes or more")
def _lifetime(it: Trial) -> str:
    minutes = it.service.own("POST", "/upload-url").ok().body["expires_in_minutes"]
    return "lives for 10 minutes or more" if minutes >= 10 else f"lives for {minutes} minutes"


@assumes("an upload of another Content-Type", _REFUSED)
def _content_type(it: Trial) -> str:
    url = it.service.own("POST", "/upload-url").ok().body["upload_url"]
    return _taken(it.service.put(url, b"", {"Content-Type": "text/plain"}))


@assumes("the answer to an upload", "has its CRC-32C")
def _checksum(it: Trial) -> str:
    packed = archive(member("a"))
    answer = it.service.put(it.service.own("POST", "/upload-url").ok().body["upload_url"], packed).ok()
    checksum = base64.b64encode(crc32c(packed).to_bytes(4, "big")).decode()
    hashes = answer.headers.get("x-goog-hash", "")
    return "has its CRC-32C" if f"crc32c={checksum}" in hashes else "has none, or another"


@assumes("a second upload to one URL", "takes the place of the first")
def _second_upload(it: Trial) -> str:
    url = it.service.own("POST", "/upload-url").ok().body["upload_url"]
    for content in (b"first", b"second"):
        it.service.put(url, archive(member("twice", content))).ok()
    it.service.own("POST", "/initialize").ok()
    return f"takes the place of the {'first' if content_of(it.service.tree()['twice']) == b'second' else 'second'}"


@assumes("an initialize from the other region", _REFUSED)
def _region(it: Trial) -> str:
    return _taken(it.service.own("POST", "/initialize", params={"region": "asia"}))


@assumes("an archive of 8 MiB", _TAKEN)
def _large(it: Trial) -> str:
    return _taken(it.service.initialize(archive(member("large", os.urandom(8 * 1024**2)))))


# -- what becomes of an archive


@assumes("a second archive", "is laid over the first")
def _second_archive(it: Trial) -> str:
    it.service.initialize(archive(member("first"))).ok()
    seconds = it.service.initialize(archive(member("second"))).ok().seconds
    if seconds >= 0.5:
        it.profile["initialize_s"] = min(600.0, round(seconds, 1))
    if "first" in it.service.tree():
        return "is laid over the first"
    it.profile["initialize"] = "replaces"
    return "takes its place"


@assumes("an executable file", "is executable there, and another is not")
def _modes(it: Trial) -> str:
    modes = [bool(it.kinds[name].mode & 0o100) for name in ("program", "plain")]
    return "is executable there, and another is not" if modes == [True, False] else f"{modes}"


@assumes("a file's time", "is kept")
def _times(it: Trial) -> str:
    return "is kept" if it.kinds["plain"].mtime == 1_000_000_000 else "is another"


@assumes("a link", "is one there")
def _links(it: Trial) -> str:
    return "is one there" if it.kinds["link"].linkname == "plain" else "is none there"


def _is_there(name: str) -> Callable[[Trial], str]:
    return lambda it: "is there" if name in it.kinds else "is missing"


assumes("an empty folder", "is there")(_is_there("empty"))
assumes("a name of 255 bytes", "is there")(_is_there(_LONG))
assumes("a path of 1,200 bytes", "is there")(_is_there(f"{_DEEP}/f"))
assumes("a name that is not UTF-8", "is there")(_is_there(_ODD))


@assumes("two names that differ by case", "are two files")
def _case(it: Trial) -> str:
    return "are two files" if {"case", "CASE"} <= it.kinds.keys() else "are one"


@assumes("a file where a folder is", "is refused, and all else is there")
def _over_a_folder(it: Trial) -> str:
    it.service.initialize(archive(member("x/in-it"))).ok()
    answer = it.service.initialize(archive(member("x/in-it"), member("before"), member("x"), member("behind")))
    tree = it.service.tree()
    if _taken(answer) is _TAKEN:
        return "takes its place" if "x/in-it" not in tree else "is left out without an error"
    if "behind" in tree:
        return "is refused, and all else is there"
    it.profile["extraction"] = "python" if "before" in tree else "whole"
    return f"is refused, and {'what was before it' if 'before' in tree else 'nothing'} is there"


@assumes("a file where a link is, a link where a file is", "take their places")
def _over_a_link(it: Trial) -> str:
    link: dict[str, Any] = {"type": tarfile.SYMTYPE, "linkname": "aim"}
    it.service.initialize(archive(member("aim", b"old"), member("one", **link), member("two"))).ok()
    it.service.initialize(archive(member("aim", b"old"), member("one", b"new"), member("two", **link))).ok()
    tree = it.service.tree()
    if content_of(tree["aim"]) == b"new":
        it.profile.setdefault("extraction", "python")
        return "are written through the link"
    return "take their places" if tree["one"].isfile() and tree["two"].issym() else "do not"


@assumes("an archive that is cut", "is refused, and what was before the cut is there")
def _cut(it: Trial) -> str:
    packed = archive(member("whole"), member("cut", os.urandom(300_000)))
    answer = it.service.initialize(packed[:200_000])
    there = "what was before the cut" if "whole" in it.service.tree() else "nothing"
    return f"{_taken(answer)}, and {there} is there"


@assumes("two initializes at once", "are both taken")
def _two_initializes(it: Trial) -> str:
    it.service.initialize(archive(member("a"))).ok()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: it.service.own("POST", "/initialize"), range(2)))
    return "are both taken" if all(_taken(each) is _TAKEN for each in answers) else "are not both taken"


# -- programs


@assumes("a program", "runs in a folder of its own, and sees the workspace")
def _program(it: Trial) -> str:
    it.service.initialize(archive(member("seen"))).ok()
    name = it.service.start(
        "import os; w = os.environ['AGENT_WORKSPACE']; print(os.path.exists(w + '/seen'), os.getcwd() != w)"
    )
    told = it.service.output(name)
    is_so = told == ("completed", "True True\n")
    return "runs in a folder of its own, and sees the workspace" if is_so else f"{told[0]}: {told[1][-200:]!r}"


@assumes("what a program writes in its folder", "is what an export holds")
def _export(it: Trial) -> str:
    name = it.service.start("open('made', 'w').write('1')")
    it.service.output(name)
    return "is what an export holds" if "made" in it.service.exported(name) else "is not exported"


@assumes("what a program writes in the workspace", "is what a dump holds, each folder too")
def _dumped(it: Trial) -> str:
    program = "import os; w = os.environ['AGENT_WORKSPACE']; os.mkdir(w + '/made'); open(w + '/made/by-program', 'w')"
    it.service.output(it.service.start(program))
    tree = it.service.tree()
    if "made/by-program" not in tree:
        return "is not in it"
    return f"is what a dump holds, {'each folder too' if 'made' in tree else 'without folders'}"


@assumes("output of 2 MiB", "is told in whole")
def _output(it: Trial) -> str:
    _, logs = it.service.output(it.service.start("print('x' * (2 * 1024**2 - 1))"))
    return "is told in whole" if len(logs) == 2 * 1024**2 else f"is told as {len(logs)} characters"


@assumes("output of a program that runs", "is told as it is printed")
def _streamed(it: Trial) -> str:
    name = it.service.start(f"import time; print('first', flush=True); time.sleep({2 * it.pause_s})")
    status, logs = it.service.output(name, it.pause_s)
    it.service.output(name)
    return "is told as it is printed" if (status, logs) == ("running", "first\n") else "is told at its end"


@assumes("a program that takes as long as a set-up may", "comes to its end")
def _long(it: Trial) -> str:
    name, began_s = it.service.start(f"import time; time.sleep({it.long_s})"), CLOCK.monotonic_s()
    status, _ = it.service.output(name, it.long_s + 60)
    return "comes to its end" if status == "completed" else f"is ended after {CLOCK.monotonic_s() - began_s:.0f} s"


@assumes("a name of an execution that runs", "is refused with 409, and runs again later")
def _name_twice(it: Trial) -> str:
    name = it.service.start(f"import time; print(1, flush=True); time.sleep({it.pause_s})")
    again = it.service.own("POST", "/execute", json={"execution_name": name})
    it.service.output(name)
    _, logs = it.service.output(it.service.start("print(2)", name))
    later = "runs again later" if logs == "2\n" else f"tells {logs[-100:]!r} later"
    return f"{_taken(again)} with {again.status}, and {later}"


@assumes(
    "a file that is written, moved or made executable", "has a newer change time, and so has its folder if it moved"
)
def _change_times(it: Trial) -> str:
    _, told = it.service.output(it.service.start(_CHANGES))
    return (
        "has a newer change time, and so has its folder if it moved" if told == "True True True True\n" else told[-100:]
    )


_CHANGES = """
import os, time
top = os.environ["AGENT_WORKSPACE"]
path, moved = top + "/changes", top + "/changed"
open(path, "w").close()
def newer(act, path):
    before = os.stat(path if os.path.exists(path) else top).st_ctime_ns
    time.sleep(0.1)
    act()
    return os.stat(path).st_ctime_ns > before
def write():
    times = os.stat(path)
    with open(path, "r+") as file:
        file.write("x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
def move():
    os.rename(path, moved)
    os.rename(moved, path)
print(newer(write, path), newer(lambda: os.chmod(path, 0o755), path), newer(move, path), newer(move, top))
os.unlink(path)
"""


@assumes("what nobody touches", "keeps its inode number and change time from one program to the next")
def _untouched(it: Trial) -> str:
    it.service.initialize(archive(member("still/file"), member("still/folder", type=tarfile.DIRTYPE))).ok()
    first, second = (it.service.output(it.service.start(_STAMPS))[1] for _ in range(2))
    is_so = first == second != ""
    return "keeps its inode number and change time from one program to the next" if is_so else "has another one"


_STAMPS = """
import os
for folder, _, names in os.walk(os.environ["AGENT_WORKSPACE"] + "/still"):
    for name in [".", *sorted(names)]:
        found = os.lstat(os.path.join(folder, name))
        print(name, found.st_ino, found.st_ctime_ns)
"""


@assumes("the clock of a sandbox", "goes on from one program to the next")
def _clock(it: Trial) -> str:
    clock = SystemClock()
    began_s = clock.monotonic_s()
    first_s, second_s = (float(it.service.output(it.service.start(_NOW))[1]) for _ in range(2))
    is_right = 0 < second_s - first_s < clock.monotonic_s() - began_s
    return "goes on from one program to the next" if is_right else f"goes by {second_s - first_s:g} s meanwhile"


_NOW = "import time; print(time.time())"


@assumes("two programs at once", "run side by side")
def _two_programs(it: Trial) -> str:
    names = [it.service.start(_SLEEPER.format(2 * it.pause_s)) for _ in range(2)]
    spans = [[float(word) for word in it.service.output(name)[1].split()] for name in names]
    if spans[0][1] > spans[1][0]:
        return "run side by side"
    it.profile["executions_at_once"] = 1
    return "run one after the other"


@assumes("an archive while a program runs", "is taken, and the program comes to its end")
def _archive_beside_a_program(it: Trial) -> str:
    name = it.service.start(_SLEEPER.format(it.pause_s))
    answer = it.service.initialize(archive(member("beside")))
    _, told = it.service.output(name)
    return f"{_taken(answer)}, and the program {'comes to its end' if len(told.split()) == 2 else 'does not'}"


_SLEEPER = "import time; print(time.time(), flush=True); time.sleep({}); print(time.time())"


@assumes("a dump while a file grows", "can be read")
def _growing(it: Trial) -> str:
    name = it.service.start(_GROWING.format(it.pause_s))
    it.service.tree()
    it.service.output(name)
    return "can be read"


_GROWING = """
import os, time
end = time.time() + {}
with open(os.environ["AGENT_WORKSPACE"] + "/grows", "ab", 0) as file:
    while time.time() < end:
        file.write(b"x" * 65536)
        time.sleep(0.01)
"""


# -- the end


@assumes("a reset", "empties the workspace, and ends what runs there")
def _reset(it: Trial) -> str:
    it.service.initialize(archive(member("before"))).ok()
    it.service.start(_LATE.format(it.pause_s))
    it.service.own("POST", "/reset").ok()
    CLOCK.sleep(it.pause_s + 1)
    tree = it.service.tree()
    late = "ends what runs there" if "late" not in tree else "a program goes on"
    return f"{'empties' if 'before' not in tree else 'keeps'} the workspace, and {late}"


_LATE = "import os, time; time.sleep({}); open(os.environ['AGENT_WORKSPACE'] + '/late', 'w')"
RELEASED = "ends it within ten seconds"


def released(service: Service) -> str:
    """Release the sandbox, which is no more the service's, and return what is found."""
    service.own("DELETE").ok()
    gone, service.sandbox = f"/{service.sandbox}", ""
    for _ in range(10):
        if (answer := service.ask("GET", gone)).status == 404:
            return RELEASED
        CLOCK.sleep(1.0)
    return f"leaves it there, and {_status(answer)}"
