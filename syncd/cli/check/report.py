"""The text file of `syncd check --report`: the facts and counts of the checks, and no name of anything.

What is shown of a value is decided by its type: a number, a switch, a choice or a time as it is, of all else only if
it is set, or how much it holds. So a message, which may name a path or an address, is in no field.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import Enum
from importlib.metadata import PackageNotFoundError, requires, version

from msgspec import Struct

from syncd import __version__
from syncd.cli.check.checkup import Checkup
from syncd.cli.check.command import Finding
from syncd.cli.options import CLOCK
from syncd.core.clock import stamp
from syncd.core.errors import NeedsPerson
from syncd.remote.failure import ApiStep
from syncd.watch.inotify_limits import watch_limit
from syncd.watch.mounts import filesystem_type

Row = tuple[str, str]

_PUBLIC = frozenset({*ApiStep, "https://api.klavis.ai", "https://api.eu.klavis.ai"})
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_HEAD = """syncd report, {at}

It holds numbers, times and words of syncd's own: no name, path, address, id, key or message.
Nothing of this was sent anywhere. Read it to the end before you pass it on.
"""


def write_report(named: str, checkup: Checkup, findings: Sequence[Finding]) -> tuple[str, int]:
    """Write the report to a new file: `named`, or one in the home directory. Its path and its number of lines.

    Raises `NeedsPerson` if the file exists, cannot be written, or would be synced.
    """
    workspace = checkup.config.workspace.path if checkup.config else None
    default = os.path.expanduser(f"~/syncd-report-{stamp(CLOCK.wall_s()).replace(':', '')}.txt")
    path = os.path.abspath(named or default)
    if workspace is not None and (os.path.realpath(path) + os.sep).startswith(workspace + os.sep):
        raise NeedsPerson(f"{path} is in the workspace and would be synced", "name a file elsewhere with --report FILE")
    text = _text(checkup, findings)
    try:
        with open(path, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)
    except OSError as failure:
        raise NeedsPerson(
            f"{path} cannot be written ({failure.strerror})", "name another file with --report FILE"
        ) from None
    return path, text.count("\n")


def _text(checkup: Checkup, findings: Sequence[Finding]) -> str:
    config = checkup.config
    scan = checkup.scan
    rows = [*_machine(), *((finding.subject, finding.grade.word) for finding in findings)]
    if config is not None:
        rows += [("file system", filesystem_type(config.workspace.path) or "unknown"), *_facts("configuration", config)]
    if scan is not None:
        kinds = Counter(entry.kind.name.lower() for entry in scan.manifest.values())
        counts = {**kinds, "bytes": scan.manifest.content_bytes, "unread": len(scan.unread)}
        counts |= {f"excluded by {source}": number for source, number in scan.left_out.items()}
        rows += ((f"workspace.{name}", str(number)) for name, number in counts.items())
    if checkup.status is not None:
        rows += _facts("status", checkup.status)
    width = max(len(name) for name, _ in rows)
    return _HEAD.format(at=stamp(CLOCK.wall_s())) + "".join(f"\n{name:{width}}  {text}" for name, text in rows) + "\n"


def _machine() -> Iterator[Row]:
    """Versions and limits."""
    yield "syncd", __version__
    yield "python", f"{platform.python_implementation()} {platform.python_version()}, {sys.getfilesystemencoding()}"
    with suppress(PackageNotFoundError):
        for name in (re.split(r"[^\w-]", each)[0] for each in requires("syncd") or () if "extra ==" not in each):
            yield name, version(name)
    kernel = re.match(r"[0-9.]+", platform.release())
    wsl = ", in WSL" if "microsoft" in platform.release().lower() else ""
    yield "kernel", f"{platform.system()} {kernel[0] if kernel else '?'}{wsl}"
    yield "machine", f"{platform.machine()}, {os.cpu_count()} processors, {watch_limit()[0]} watches"


def _facts(name: str, value: object) -> Iterator[Row]:
    """The value, or each field of a record, as far as it tells no name."""
    if isinstance(value, Struct):
        for field in value.__struct_fields__:
            yield from _facts(f"{name}.{field}", getattr(value, field))
    elif isinstance(value, Enum):
        yield name, str(value.value)
    elif isinstance(value, bool | int | float):
        yield name, str(value).lower()
    elif isinstance(value, str) and (value in _PUBLIC or _TIME.fullmatch(value)):
        yield name, value
    elif isinstance(value, tuple | dict):
        yield name, f"{len(value)} entries"
    else:
        yield name, "set" if value else "not set"
