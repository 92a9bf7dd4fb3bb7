"""The program that removes files in the sandbox. It runs there, alone, with any Python 3.

It removes exactly the paths on its list, inside the workspace, through directory descriptors and following no link;
a file or link only if it is what was uploaded, a directory only if it is empty. It prints the outcome for each.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import stat
import sys
from typing import Any

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def _parent(top: int, components: list[bytes]) -> int:
    folder = os.dup(top)
    for part in components:
        try:
            below = os.open(part, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _digest(name: bytes, parent: int) -> str:
    sha256 = hashlib.sha256()
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    with os.fdopen(descriptor, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha256.update(block)
    return sha256.hexdigest()


def _is_uploaded(version: dict[str, Any], name: bytes, parent: int, status: os.stat_result) -> bool:
    if version["kind"] == "d":
        return stat.S_ISDIR(status.st_mode)
    if version["kind"] == "l":
        target = base64.b64decode(version["target"])
        return stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=parent) == target
    if not stat.S_ISREG(status.st_mode) or status.st_size != version["size"]:
        return False
    return bool(_digest(name, parent) == version["sha256"])


def _remove(top: int, item: dict[str, Any]) -> str:
    components = base64.b64decode(item["path"]).split(b"/")
    try:
        parent = _parent(top, components[:-1])
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    except OSError as failure:  # a link took a directory's place: what is behind it was not uploaded
        return "absent" if failure.errno == errno.ELOOP else "failed: " + os.strerror(failure.errno or 0)
    name = components[-1]
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not any(_is_uploaded(version, name, parent, status) for version in item["versions"]):
            return "changed"
        if stat.S_ISDIR(status.st_mode):
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as failure:
                if failure.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    return "kept"  # it holds something else
                raise
            return "removed"
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return "absent"
    except OSError as failure:
        return "failed: " + os.strerror(failure.errno or 0)
    else:
        return "removed"
    finally:
        os.close(parent)


def main() -> None:
    """Read the list beside this file, and remove its paths."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "removals.json"), encoding="ascii") as file:
        request = json.load(file)
    top = os.open(os.environ["AGENT_WORKSPACE"], os.O_RDONLY | os.O_DIRECTORY)
    rows = [json.dumps([request["word"], index, _remove(top, item)]) for index, item in enumerate(request["items"])]
    rows.append(json.dumps([request["word"], "done"]))
    sys.stdout.write("\n".join(rows) + "\n")  # at once, since line by line costs more than the work itself


if __name__ == "__main__":
    main()
