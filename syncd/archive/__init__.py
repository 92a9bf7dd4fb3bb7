"""Makes the tar.gz from kept chunks, and reads archives of others.

Begins at `snapshotter`, which scans and packs.
"""
