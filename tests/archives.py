"""Archives as any program may make them, with every field of a member as a test wants it."""

from __future__ import annotations

import io
import tarfile
from typing import Any

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, content: bytes = b"", **fields: Any) -> Member:
    """Return an archive's entry; `fields` are a TarInfo's."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def archive(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar.gz of these entries."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", errors="surrogateescape", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()
