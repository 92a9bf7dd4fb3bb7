"""For commands that only tell what a snapshot would hold: a scan knows names, and a secret may be in the content."""

from __future__ import annotations

from syncd.scan.file_reader import ContentReader
from syncd.scan.manifest import Kind
from syncd.scan.scanner import Scan
from syncd.selection.secret_scanner import LARGEST_BYTES, Secret


def without_secret_files(scan: Scan, reader: ContentReader) -> dict[str, Secret]:
    """Take the files that hold a secret out of what was found; they and their secrets. Raises `WorkspaceError`.

    Reads every small file: what an earlier process found out about them is the daemon's business.
    """
    entries = scan.manifest.items()
    secrets = reader.secrets(
        path for path, entry in entries if entry.kind is Kind.FILE and entry.size_bytes <= LARGEST_BYTES
    )
    for path in secrets:
        del scan.manifest[path]
    return secrets
