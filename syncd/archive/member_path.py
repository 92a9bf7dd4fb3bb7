"""The path inside a folder that a name in an archive of another program stands for."""

from __future__ import annotations

# No system call takes a longer path (PATH_MAX in linux/limits.h).
LONGEST_PATH = 4095


def inner_path(name: str) -> str | None:
    """The path, "" for the folder itself; None if the name is absolute, leads outside, or is no valid name.

    One that is too long is none: its folders, each with its path, would take the square of its length.

    Some archives have a leading `./`, and a slash after the names of directories.
    """
    if len(name) > LONGEST_PATH or name.startswith("/") or "\0" in name:
        return None
    components = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in components else "/".join(components)


def is_within(path: str | None, folder: str) -> bool:
    """Return True if the path is the folder, or is below it; no path is within an empty one."""
    return bool(folder) and path is not None and (path == folder or path.startswith(folder + "/"))
