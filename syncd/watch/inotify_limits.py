"""The kernel's limits on watching, and warnings about them with the exact command that raises them.

`fs.inotify.*` applies to the machine, `user.*` to a user namespace (a container); the smaller one is in force. Both
count for each user, so other programs (editors, file managers) use them up too. Sources: inotify(7), namespaces(7).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from syncd.core.errors import SyncWarning

_WATCHES = ("fs.inotify.max_user_watches", "user.max_inotify_watches")
_INSTANCES = ("fs.inotify.max_user_instances", "user.max_inotify_instances")
_RECOMMENDED = {_WATCHES: 524_288, _INSTANCES: 512}


def _read(setting: str) -> int | None:
    try:
        with open("/proc/sys/" + setting.replace(".", "/"), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _in_force(settings: tuple[str, str]) -> tuple[str, int | None]:
    known = [(value, setting) for setting in settings if (value := _read(setting)) is not None]
    if not known:
        return settings[0], None
    value, setting = min(known, key=lambda pair: pair[0])
    return setting, value


def _describe(settings: tuple[str, str]) -> tuple[str, str]:
    """Return the limit in words, and the commands that raise it now and permanently."""
    setting, value = _in_force(settings)
    line = f"{setting}={max(_RECOMMENDED[settings], 2 * (value or 0))}"
    limit = f"{setting} is {value}" if value is not None else f"{setting} is reached"
    return limit, f"sudo sysctl {line}; to keep it, echo {line} | sudo tee /etc/sysctl.d/60-inotify.conf"


def watch_limit() -> tuple[int | None, str]:
    """Return the limit of watches in force (None if this kernel has none), and the commands that raise it."""
    return _in_force(_WATCHES)[1], _describe(_WATCHES)[1]


def instance_limit() -> int | None:
    """Return the limit of instances in force; None if this kernel has none."""
    return _in_force(_INSTANCES)[1]


def no_instance(error: OSError) -> SyncWarning:
    """Return the warning that nothing can be watched, as inotify gave no instance."""
    what = "changes cannot be watched, the workspace is polled"
    if error.errno == errno.EMFILE and not _descriptors_used_up():
        limit, remedy = _describe(_INSTANCES)
        return SyncWarning(
            "watch:instances", f"{what}, as all inotify instances of this user are taken ({limit})", remedy
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return SyncWarning(
            "watch:descriptors", f"{what}, as too many files are open", "raise `ulimit -n` (LimitNOFILE=)"
        )
    why = os.strerror(error.errno) if error.errno else str(error)
    return SyncWarning(
        "watch:none",
        f"{what}, as inotify gives no instance ({why})",
        "run on a kernel, or in a sandbox, that allows inotify",
    )


def unwatched(missed: Mapping[str, int], total: int) -> tuple[SyncWarning, ...]:
    """Return the warnings about directories (relative path to errno) that cannot be watched, one for each errno."""
    by_reason: dict[int, list[str]] = {}
    for path, code in missed.items():
        by_reason.setdefault(code, []).append(path)
    return tuple(_reason(code, paths, total) for code, paths in sorted(by_reason.items()))


def _reason(code: int, paths: list[str], total: int) -> SyncWarning:
    first = (min(paths) or ".").encode("utf-8", "backslashreplace").decode()
    if code == errno.ENOSPC:
        limit, remedy = _describe(_WATCHES)
        what = f"{len(paths)} of {total} directories cannot be watched and are polled (first: {first}), as {limit}"
        return SyncWarning("watch:limit", what, remedy)
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    what = f"{first}{others} cannot be watched and is polled ({os.strerror(code)})"
    remedy = (
        f"chmod u+rx {first}" if code == errno.EACCES else "nothing to do; changes in it are found by periodic scans"
    )
    return SyncWarning(f"watch:{errno.errorcode.get(code, code)}", what, remedy)


def _descriptors_used_up() -> bool:
    """True if no more descriptors can be opened: EMFILE means either that, or that the user's instances are used up."""
    try:
        os.close(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError:
        return True
    return False
