"""Which path inside a folder a name from someone else's archive stands for, if any."""

from __future__ import annotations


def inner_path(name: str) -> str | None:
    """The path, "" for the folder itself; None where the name is absolute, leads out, or is no name at all.

    Archives are made with and without a leading `./`, and with a slash behind directories.
    """
    if name.startswith("/") or "\0" in name:
        return None
    components = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in components else "/".join(components)
