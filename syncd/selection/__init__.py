"""Decides which paths belong to the snapshot: gitignore files, built-in rules, secrets.

Begins at `selection`, which combines the rules of `rules`, `gitignore` and `builtin_rules`.
"""
