"""Scans the workspace into a manifest, and guards against syncing a workspace that was lost.

Begins at `scanner`.
"""
