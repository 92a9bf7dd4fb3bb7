"""Finds what is on disk now: the manifest, and the guard against a workspace that is suddenly gone.

Begins at `scanner`.
"""
