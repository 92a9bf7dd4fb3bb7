"""The kernel's limits on watching, told as problems with the exact line that lifts them.

`fs.inotify.*` holds for the machine, `user.*` for a user namespace (a container); the smaller binds. Both are counted
per user, so other programs (editors, file managers) use them up too. Outside facts: inotify(7), namespaces(7).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from syncd.core.warning import SyncWarning

_WATCHES = ("fs.inotify.max_user_watches", "user.max_inotify_watches")
_INSTANCES = ("fs.inotify.max_user_instances", "user.max_inotify_instances")
_DESCRIPTORS_EACH = 3  # inotify, and the pipe that wakes its reader
_AMPLE = {_WATCHES: 524_288, _INSTANCES: 512}


def _read(setting: str) -> int | None:
    try:
        with open("/proc/sys/" + setting.replace(".", "/"), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _binding(settings: tuple[str, str]) -> tuple[str, int | None]:
    known = [(value, setting) for setting in settings if (value := _read(setting)) is not None]
    if not known:
        return settings[0], None
    value, setting = min(known, key=lambda pair: pair[0])
    return setting, value


def _raise_it(settings: tuple[str, str]) -> tuple[str, str]:
    """The limit in words, and how to lift it now and for good."""
    setting, value = _binding(settings)
    line = f"{setting}={max(_AMPLE[settings], 2 * (value or 0))}"
    said = f"{setting} is {value}" if value is not None else f"{setting} is reached"
    return said, f"sudo sysctl {line}; to keep it: echo {line} | sudo tee /etc/sysctl.d/60-inotify.conf"


def watch_limit() -> tuple[int | None, str]:
    """The limit of watches that binds, None if this kernel tells none; and how to lift it."""
    return _binding(_WATCHES)[1], _raise_it(_WATCHES)[1]


def instance_limit() -> int | None:
    """The limit of instances that binds, None if this kernel tells none."""
    return _binding(_INSTANCES)[1]


def no_instance(error: OSError) -> SyncWarning:
    """Nothing at all can be watched: inotify gave no instance, with this error."""
    what = "changes cannot be watched, the workspace is polled"
    if error.errno == errno.EMFILE and not _descriptors_used_up():
        said, remedy = _raise_it(_INSTANCES)
        return SyncWarning("watch:instances", f"{what}: all inotify instances of this user are taken ({said})", remedy)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return SyncWarning("watch:descriptors", f"{what}: too many open files", "raise `ulimit -n` (LimitNOFILE=)")
    why = os.strerror(error.errno) if error.errno else str(error)
    return SyncWarning("watch:none", f"{what}: inotify: {why}", "run on a kernel, or in a sandbox, that allows inotify")


def unwatched(missed: Mapping[str, int], total: int) -> tuple[SyncWarning, ...]:
    """Directories (relative path to errno) that inotify would not take, of `total`, one problem for each reason."""
    by_reason: dict[int, list[str]] = {}
    for path, code in missed.items():
        by_reason.setdefault(code, []).append(path)
    return tuple(_reason(code, paths, total) for code, paths in sorted(by_reason.items()))


def _reason(code: int, paths: list[str], total: int) -> SyncWarning:
    first = (min(paths) or ".").encode("utf-8", "backslashreplace").decode()
    if code == errno.ENOSPC:
        said, remedy = _raise_it(_WATCHES)
        what = f"{len(paths)} of {total} directories cannot be watched and are polled (first: {first}): {said}"
        return SyncWarning("watch:limit", what, remedy)
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    what = f"{first}{others} cannot be watched and is polled: {os.strerror(code)}"
    remedy = f"chmod u+rx {first}" if code == errno.EACCES else "none is known"
    return SyncWarning(f"watch:{errno.errorcode.get(code, code)}", what, remedy)


def _descriptors_used_up() -> bool:
    """EMFILE is the same for the user's instances and the process's descriptors; only trying tells."""
    held: list[int] = []
    try:
        while len(held) < _DESCRIPTORS_EACH:
            held.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError:
        return True
    finally:
        for fd in held:
            os.close(fd)
    return False
