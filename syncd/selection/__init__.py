"""Decides which paths belong to the snapshot: gitignore files, built-in rules, secrets.

Begins at `selection`, which combines the rules of `ignore_files` and `builtin_rules`.
"""
