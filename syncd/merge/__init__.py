"""Brings the agent's work home: the patch of it, the plan by three sides, the writes that can be undone, git.

Begins at `merge_plan`.
"""
