"""The part that all programs in the sandbox share: it reads the request, ends in time, and prints the report.

A program is sent as `main.py`, with the modules of ours that it imports and the request beside it. It runs with any
Python from 3.6 on, which evaluates no annotation here: they are texts.
"""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
from collections import namedtuple
from typing import Any
from urllib.parse import quote_from_bytes

# A FIFO in a file's place must not block, nor a terminal become this process's own.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
BLOCK = 1 << 18
SPARE_BYTES = 64 << 20  # stay free on the disk
DIGEST_BYTES = 16  # of each SHA-256 in a request
_LONGEST_LOG = 200 << 10  # a longer report becomes a file, since an answer of the API is limited
_LONGEST_LINE = 4000  # some logs cut longer lines
_PLAIN = "".join(letter for letter in map(chr, range(32, 127)) if letter not in '%"\\')

# A version in a request: `kind` is d, l, f, x (an executable file), or u (of unknown content).
Version = namedtuple("Version", "kind size digest target")  # noqa: PYI024 - Python 3.6 may run this


class _TimeIsUp(BaseException):
    """The time of the present part is over."""


class Alarm:
    """Ends a part of a program in its middle, also while it waits for a file system."""

    is_set = False

    @classmethod
    def ring(cls, *_: "Any") -> None:
        if cls.is_set:
            cls.is_set = False
            raise _TimeIsUp

    @classmethod
    def within(cls, seconds: "float", act: "Any") -> "Any":
        """Return what `act` returns; None if it was ended after so many seconds, or if there are none."""
        if seconds <= 0:
            return None
        was_set, left_s = cls.is_set, 0.0
        try:
            try:
                cls.is_set = True
                left_s = signal.setitimer(signal.ITIMER_REAL, seconds)[0]
                return act()
            finally:
                cls.is_set = False
        except _TimeIsUp:
            return None
        finally:
            cls.is_set = was_set
            signal.setitimer(signal.ITIMER_REAL, left_s)


def text_of(name: "bytes") -> "str":
    """Return a name for the report: any other byte as `%` and two digits, so that no text has a quote or an escape."""
    return quote_from_bytes(name, _PLAIN)


def bytes_of(name: "str") -> "bytes":
    return name.encode("utf-8", "surrogateescape")


def paths_of(request: "dict[str, Any]") -> "list[bytes]":
    return [bytes_of(path) for path in request["paths"].split("\0")] if request["counts"] else []


def versions_of(request: "dict[str, Any]") -> "Any":
    """Yield the versions of each path, from their columns."""
    kinds, sizes, targets = iter(request["kinds"]), map(int, request["sizes"].split()), iter(request["targets"])
    digests = base64.b64decode(request["digests"])
    place = 0
    for count in request["counts"]:
        versions = []
        for _ in range(ord(count) - 48):
            kind = next(kinds)
            if kind in "fx":
                versions.append(Version(kind, next(sizes), digests[place : place + DIGEST_BYTES], b""))
                place += DIGEST_BYTES
            else:
                versions.append(Version(kind, -1, b"", bytes_of(next(targets)) if kind == "l" else b""))
        yield versions


def stamp(status: "os.stat_result") -> "tuple[int, ...]":
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def run(main: "str", act: "Any") -> None:
    """Read the request beside the program, and print the report that `act` returns for it and for the folder.

    Both and the program are deleted first, so that the export of the folder holds the copies alone.
    """
    own = os.path.dirname(os.path.abspath(main))
    with open(os.path.join(own, "request.json"), encoding="ascii") as file:
        request = json.load(file)
    shutil.rmtree(os.path.join(own, "syncd"), ignore_errors=True)  # what is imported is in memory
    for name in ("request.json", os.path.basename(main)):
        with contextlib.suppress(OSError):  # then the export holds it too, which does no harm
            os.unlink(os.path.join(own, name))
    signal.signal(signal.SIGALRM, Alarm.ring)
    longest_log = request.get("longest_log", _LONGEST_LOG)
    sys.stdout.write(printed(request["word"], act(request, own), own, longest_log))


def printed(word: "str", report: "dict[str, Any]", own: "str", longest_log: "int" = _LONGEST_LOG) -> "str":
    """Return the lines to print: the report in parts, or a file's place if it is long; at the end length and digest."""
    text = json.dumps(report, separators=(",", ":"))
    content = text.encode("ascii")
    place, parts = "log", range(0, len(text), _LONGEST_LINE)
    if len(text) > longest_log:
        with contextlib.suppress(OSError):  # else the log may take it
            with open(os.path.join(own, "report.json"), "xb") as file:
                file.write(content)
            place, parts = "file", range(0)
    lines = [f"{word}<{text[start : start + _LONGEST_LINE]}>\n" for start in parts]
    end = f"{word}={place} {len(content)} {hashlib.sha256(content).hexdigest()}\n"
    return "".join([*lines, end])
