"""Brings the agent's work home: the patch of it, the writes that can be undone, git.

Begins at `home`.
"""
