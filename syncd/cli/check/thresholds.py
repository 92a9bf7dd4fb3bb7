"""Limits at which `syncd check` warns or fails: clock, disk, size, watches, secrets, times to live, looks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from syncd.cli.check.finding import Finding, Grade
from syncd.cli.check.largest_paths import PathSize, ignore_line
from syncd.core.choices import AgentChanges
from syncd.core.formatting import duration, few, size

# Signed URLs live for half an hour: a skew below a minute does not matter, neither to them nor in logs.
SKEW_S = 60.0
# Other programs of the same user, editors above all, need watches too.
WATCHES_SHARE = 0.75
# A snapshot this large will soon be over its limit.
SIZE_SHARE = 0.8
# For the status, the history and a socket.
LEAST_SPACE_BYTES = 1 << 20
# Certificates are renewed weeks, the shortest-lived days before their end.
CERTIFICATE_DAYS = 3.0
_QUOTES = "'\"`"
_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_DAY_S = 86_400.0
_MIB = 1 << 20


def judge_clock(skew_s: float | None) -> Finding:
    """This machine's wall clock minus the server's is `skew_s`; None: no answer had a date."""
    if skew_s is None:
        return Finding("clock", Grade.NOTE, "not compared: no answer had the server's time")
    if abs(skew_s) < SKEW_S:
        # The server's date has whole seconds, so less than two may be none.
        what = "agrees with the server's" if abs(skew_s) < 2 else f"{_off(skew_s)} the server's, which does no harm"
        return Finding("clock", Grade.PASS, what)
    return Finding(
        "clock",
        Grade.WARN,
        f"{_off(skew_s)} the server's; syncing corrects for it, but times in logs and status are wrong",
        "set the clock: sudo timedatectl set-ntp true",
    )


def judge_size(files: int, directories: int, content_bytes: int, max_mib: int, remedy: str) -> Finding:
    """The size of a snapshot of the workspace, which is not over `sync.max_snapshot_mib`."""
    what = f"{_count(files, 'file')} in {_count(directories, 'directory')}, {size(content_bytes)}"
    if not files:
        return Finding(
            "directory",
            Grade.WARN,
            f"{what}: nothing to send",
            "run `syncd ls --ignored`, or correct workspace.path",
        )
    if content_bytes > SIZE_SHARE * max_mib * _MIB:
        return Finding(
            "directory",
            Grade.WARN,
            f"{what}: near the limit of {max_mib:,} MiB",
            remedy,
        )
    return Finding("directory", Grade.PASS, f"{what}, of {max_mib:,} MiB allowed")


def judge_state_space(what: str, free_bytes: int) -> Finding:
    """The disk of the state, which is small: `what` is said of its folder."""
    if free_bytes < LEAST_SPACE_BYTES:
        remedy = "free some disk space, or set XDG_STATE_HOME to a larger disk"
        return Finding("state", Grade.FAIL, f"{what}, and has {size(free_bytes)} free", remedy)
    return Finding("state", Grade.PASS, what)


def judge_space(folder: str, free_bytes: int, content_bytes: int) -> Finding:
    """The disk of the spool. The size of the archive is not known in advance: of source code, about a quarter."""
    what = f"{folder} has {size(free_bytes)} free"
    remedy = "free some disk space, or set XDG_CACHE_HOME to a larger disk"
    if free_bytes < LEAST_SPACE_BYTES:
        return Finding("spool", Grade.FAIL, what, remedy)
    if free_bytes < content_bytes:
        return Finding("spool", Grade.WARN, f"{what}, less than the workspace holds: its archive may not fit", remedy)
    return Finding("spool", Grade.PASS, what)


def judge_heaviest(weights: Sequence[PathSize]) -> Finding:
    """The largest files and folders, each as the line of an ignore file that leaves it out."""
    details = tuple(
        f"{weight.share:4.0%} {size(weight.size_bytes):>11}  {ignore_line(weight.path, weight.is_dir)}"
        for weight in weights
    )
    share = sum(weight.share for weight in weights)
    what = f"{_count(len(weights), 'file')} or folders hold {share:.0%} of it"
    if len(weights) == 1:
        what = f"one {'folder' if weights[0].is_dir else 'file'} holds {share:.0%} of it"
    return Finding("largest", Grade.NOTE, what, "to leave one out, put its line into .syncdignore", details)


def judge_secrets(by_name: Sequence[str], by_content: Sequence[str]) -> Finding:
    """The files left out as secrets, each with its rule or line. Those found by content are a warning."""
    number = len(by_name) + len(by_content)
    if not number:
        return Finding("secrets", Grade.PASS, "none found")
    shown = few((*by_content, *by_name), number, ": syncd ls --ignored")
    kinds = [f"{len(paths):,} {how}" for paths, how in ((by_content, "by content"), (by_name, "by name")) if paths]
    what = f"{_count(number, 'path')} held back: {', '.join(kinds)}"
    remedy = "remove the secret, or allow the path in workspace.allow_secrets" if by_content else ""
    return Finding("secrets", Grade.WARN if by_content else Grade.NOTE, what, remedy, tuple(shown))


def judge_watches(
    directories: int,
    watches: int | None,
    remedy: str,
    instances: int | None,
) -> Finding:
    """Compare one watch for each directory and one instance with this user's limits; None: the limit is not known."""
    what = f"{_of(directories, watches)} watches and {_of(1, instances)} instances needed"
    if watches is not None and directories > watches:
        return Finding("inotify", Grade.WARN, f"{what}: too many, the rest is polled", remedy)
    if watches is not None and directories > WATCHES_SHARE * watches:
        return Finding("inotify", Grade.WARN, f"{what}; this user's other programs need some too", remedy)
    return Finding("inotify", Grade.PASS, what)


def judge_end(ends_in_s: float | None) -> Finding:
    """The time left to an acquired sandbox; None: it has no end."""
    if ends_in_s is None:
        return Finding("time to live", Grade.PASS, "it has no end")
    what = f"{duration(ends_in_s)} more" if ends_in_s > 0 else "it has ended"
    return Finding("time to live", Grade.PASS, f"{what}; the next one is acquired in time")


class LookAttempt(Struct, frozen=True):
    """One attempt to look at the sandbox: the seconds that it took, and its failure in words, "" if it worked."""

    seconds: float
    failure: str = ""


def judge_look(agent_changes: AgentChanges, program: LookAttempt, archive: LookAttempt) -> Finding:
    """A look by a program in the sandbox, else by the sandbox's archive; `agent_changes` is SAVE or HOLD.

    `archive` is only considered if the program failed.
    """
    if not program.failure:
        return Finding("looks", Grade.PASS, f"a program in the sandbox looked for changes in {program.seconds:.2f} s")
    if not archive.failure:
        what = f"no program looks there ({program.failure}), so each look takes the whole archive"
        return Finding("looks", Grade.NOTE, f"{what}, which took {archive.seconds:.2f} s")
    what = f"neither a program ({program.failure}) nor the sandbox's archive ({archive.failure}) can look for changes"
    if agent_changes is AgentChanges.HOLD:
        remedy = 'run `syncd check` again later; if it stays so, set sandbox.agent_changes = "save" or "overwrite"'
        return Finding("looks", Grade.FAIL_FOR_NOW, f"{what}, so nothing is sent", remedy)
    remedy = 'run `syncd check` again later; with sandbox.agent_changes = "hold" nothing is sent meanwhile'
    harm = "a sync goes on without looking, and what the agent changed is overwritten unsaved"
    return Finding("looks", Grade.WARN, f"{what}: {harm}", remedy)


def judge_key(key: str, locations: str) -> Finding:
    """The key as it is written in its place: quotes or an assignment around it would be sent as a part of it."""
    mistake = ""
    if key[0] in _QUOTES or key[-1] in _QUOTES:
        mistake = "it begins or ends with a quote"
    elif _ASSIGNMENT.match(key):
        mistake = "it begins with a variable's name and ="
    if mistake:
        return Finding("key", Grade.WARN, f"{locations}: {mistake}", "leave nothing there but the key itself")
    return Finding("key", Grade.PASS, locations)


def judge_private(subject: str, path: str, mode: int, *, forbidden: int, harm: str) -> Finding | None:
    """A warning about a file or folder with `forbidden` permissions; None if it has none of them."""
    if not mode & forbidden:
        return None
    return Finding(
        subject, Grade.WARN, f"{path} (mode {mode:04o}): {harm}", f"chmod {_letters(forbidden)} {_quoted(path)}"
    )


def judge_versions(daemon: str | None, own: str) -> Finding | None:
    """A warning about a daemon of another version; None if it has this version, or an unknown one."""
    if daemon is None or daemon == own:
        return None
    what = f"it is version {daemon}, this command {own}"
    return Finding("daemon", Grade.WARN, what, "restart it: systemctl --user restart syncd, or run `syncd run` anew")


def _letters(forbidden: int) -> str:
    """The permissions in the words of chmod(1): `go-w` or `go-rwx`."""
    return "go-w" if forbidden == 0o022 else "go-rwx"


def _quoted(path: str) -> str:
    """The path in quotes, if a shell needs them."""
    plain = path and all(c.isalnum() or c in "/._-+@%," for c in path)
    return path if plain else "'" + path.replace("'", "'\\''") + "'"


def _off(skew_s: float) -> str:
    return f"{abs(skew_s):,.0f} s {'ahead of' if skew_s > 0 else 'behind'}"


def _count(number: int, thing: str) -> str:
    if number == 1:
        return f"1 {thing}"
    return f"{number:,} {thing[:-1]}ies" if thing.endswith("y") else f"{number:,} {thing}s"


def _of(needed: int, allowed: int | None) -> str:
    return f"{needed:,}" if allowed is None else f"{needed:,} of {allowed:,}"
