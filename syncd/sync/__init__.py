"""One sync, from the scan to initialized, and its records.

Begins at `sync_once`.
"""
