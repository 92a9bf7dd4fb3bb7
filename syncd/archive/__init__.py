"""Packs the workspace into a tar.gz, whose unchanged chunks are reused, and reads archives of other programs.

Begins at `snapshotter`, which scans and packs.
"""
