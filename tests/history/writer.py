"""`python -m tests.history.writer SIDE FOLDER DRAFT SEED SECONDS PAUSE`: reads, writes, deletes, and prints each step.

A write exchanges the file with a draft in one step, and so knows what it replaced. The draft is outside of the folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import sys
from pathlib import Path

from syncd.core.clock import SystemClock
from tests.history.checker import Step, Values

SLOTS = {**{f"file{number}": 1 for number in range(6)}, **{f"folder/text{number}": 3 for number in range(3)}}
_CLOCK = SystemClock()
_LIBC = ctypes.CDLL(None, use_errno=True)
_AS_NEW, _EXCHANGE = 1, 2  # of renameat2(2)
_END = b"end\n"


def found_in(content: bytes) -> list[tuple[str, str]]:
    """Return the slots and tokens in a text."""
    return re.findall(r"^(\d) = (\w+)$", content.decode("latin-1"), re.MULTILINE)


def values_in(path: Path) -> Values | None:
    """Return what a file's slots hold; None if it is missing, or is being written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return dict(found_in(content)) if content.endswith(_END) else None


def _work(
    side: str, folder: Path, draft: Path, token: str, chance: random.Random, last: dict[str, Values | None]
) -> None:
    """Read all files, `last` with what they held; perhaps write or delete one of them then."""

    def tell(kind: str, *values: Values | None) -> None:
        print(json.dumps(Step(kind, side, begin, _CLOCK.monotonic_s(), name, *values)), flush=True)

    for name in chance.sample(list(SLOTS), len(SLOTS)):
        begin = _CLOCK.monotonic_s()
        seen = values_in(folder / name)
        if name not in last or seen != last[name]:
            tell("read", seen)
            last[name] = seen
    what, path, values, begin = chance.random(), folder / name, None, _CLOCK.monotonic_s()
    if what < 0.35 and (seen is not None or not path.exists()):
        new = {str(slot): f"{token}x{slot}" for slot in range(SLOTS[name])}
        values = new if seen is None else {**seen, chance.choice(list(seen)): token}
        # The slots are so far from each other that git merges them.
        lines = (f"{slot} = {token}\n" + f"below {slot}\n" * 5 for slot, token in values.items())
        draft.write_bytes("".join(lines).encode() + _END)
        path.parent.mkdir(exist_ok=True)
        while not (_renamed(draft, path, _AS_NEW) or _renamed(draft, path, _EXCHANGE)):
            pass
    elif what > 0.4 or seen is None or not _renamed(path, draft, _AS_NEW):
        return
    last[name] = values
    tell("delete" if values is None else "write", values, values_in(draft), seen)
    draft.unlink(missing_ok=True)


def _renamed(old: Path, new: Path, flags: int) -> bool:
    """Rename in one step; false if there is something at the new path, or nothing at the old one."""
    here = -100
    if _LIBC.renameat2(here, os.fsencode(old), here, os.fsencode(new), flags) == 0:
        return True
    if (error := ctypes.get_errno()) in (2, 17):  # ENOENT, EEXIST
        return False
    raise OSError(error, os.strerror(error), str(new))


def main(side: str, folder: str, draft: str, *numbers: str) -> None:
    """Work for so many seconds, with pauses so long on average."""
    seed, seconds, pause_s = map(float, numbers)
    chance, count, last = random.Random(f"{side} {seed}"), 0, {}
    until_s = _CLOCK.monotonic_s() + seconds
    while _CLOCK.monotonic_s() < until_s:
        count += 1
        _work(side, Path(folder), Path(draft), f"{side}{count:05}", chance, last)
        _CLOCK.sleep(chance.expovariate(1 / pause_s))


if __name__ == "__main__":
    main(*sys.argv[1:])
