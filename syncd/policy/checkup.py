"""From which numbers on `syncd check` warns or fails: clock, disk, snapshot size and watches."""

from __future__ import annotations

from syncd.policy.finding import Finding, Grade
from syncd.policy.limit import mib

# A signed URL lives half an hour; what is off by less than a minute takes nothing from it, nor from people's logs.
SKEW_S = 60.0
# Other programs of the same user, editors above all, need watches too.
WATCHES_SHARE = 0.75
# A snapshot this near to its limit is over it by next month.
SIZE_SHARE = 0.8
# For the status, the journal and a socket.
LEAST_SPACE_BYTES = 1 << 20
_MIB = 1 << 20


def judge_clock(skew_s: float | None) -> Finding:
    """`skew_s` is this machine's wall clock minus the server's; None: no answer had a date."""
    if skew_s is None:
        return Finding("clock", Grade.NOTE, "not compared: no answer told the server's time")
    if abs(skew_s) < SKEW_S:
        # The server's date has whole seconds, so less than two is nothing.
        off = "agrees with the server's" if abs(skew_s) < 2 else f"{_off(skew_s)} the server's, which does no harm"
        return Finding("clock", Grade.PASS, off)
    return Finding(
        "clock",
        Grade.WARN,
        f"{_off(skew_s)} the server's; syncing corrects for it, but times in logs and status are wrong",
        "set the clock: sudo timedatectl set-ntp true",
    )


def judge_size(files: int, directories: int, content_bytes: int, max_mib: int) -> Finding:
    """The workspace as a snapshot would hold it, against `sync.max_snapshot_mib` (not yet over it)."""
    what = f"{_count(files, 'file')} in {_count(directories, 'directory')}, {size(content_bytes)}"
    if not files:
        return Finding(
            "directory",
            Grade.WARN,
            f"{what}: nothing to send",
            "look at `syncd ls --ignored`, or correct workspace.path",
        )
    if content_bytes > SIZE_SHARE * max_mib * _MIB:
        return Finding(
            "directory",
            Grade.WARN,
            f"{what}: near the limit of {max_mib:,} MiB",
            "ignore what is large in .syncdignore, or raise sync.max_snapshot_mib",
        )
    return Finding("directory", Grade.PASS, f"{what}, of {max_mib:,} MiB allowed")


def judge_space(folder: str, free_bytes: int, content_bytes: int) -> Finding:
    """The disk of the spool. How small the archive will be is not known before it is made: source code, a quarter."""
    what = f"{folder} has {size(free_bytes)} free"
    remedy = "free some disk space, or set XDG_CACHE_HOME to a roomier disk"
    if free_bytes < LEAST_SPACE_BYTES:
        return Finding("spool", Grade.FAIL, what, remedy)
    if free_bytes < content_bytes:
        return Finding("spool", Grade.WARN, f"{what}, less than the workspace holds: its archive may not fit", remedy)
    return Finding("spool", Grade.PASS, what)


def judge_watches(directories: int, watches: int | None, remedy: str, instances: int | None) -> Finding:
    """One watch a directory and one instance in all, against this user's limits; None: this kernel tells none."""
    what = f"{_of(directories, watches)} watches and {_of(1, instances)} instances needed"
    if watches is not None and directories > WATCHES_SHARE * watches:
        return Finding("inotify", Grade.WARN, f"{what}; this user's other programs need some too", remedy)
    return Finding("inotify", Grade.PASS, what)


def size(size_bytes: int) -> str:
    """A size for people."""
    if size_bytes < 10_000:
        return _count(size_bytes, "byte")
    if size_bytes < 10 * _MIB:
        return f"{size_bytes / 1024:,.0f} KiB"
    return mib(size_bytes) if size_bytes < 10_240 * _MIB else f"{size_bytes / (1 << 30):,.0f} GiB"


def _off(skew_s: float) -> str:
    return f"{abs(skew_s):,.0f} s {'ahead of' if skew_s > 0 else 'behind'}"


def _count(number: int, thing: str) -> str:
    if number == 1:
        return f"1 {thing}"
    return f"{number:,} {thing[:-1]}ies" if thing.endswith("y") else f"{number:,} {thing}s"


def _of(needed: int, allowed: int | None) -> str:
    return f"{needed:,}" if allowed is None else f"{needed:,} of {allowed:,}"
