"""Says how often a workspace is scanned from which no event can come, such as one on NFS."""

from __future__ import annotations

# No more often than this, and for a twentieth of the time at most.
_LEAST_S = 2.0
_SHARE = 20


def poll_interval_s(scan_took_s: float) -> float:
    """The seconds between two scans, after one that took so long."""
    return max(_LEAST_S, _SHARE * scan_took_s)
