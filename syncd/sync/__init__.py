"""One sync, from the scan to initialized, and what it remembers.

Begins at `sync_cycle`.
"""
