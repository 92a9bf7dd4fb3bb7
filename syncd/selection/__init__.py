"""Decides which paths belong to the snapshot: gitignore files, built-in rules, secrets.

Begins at `selection`, which combines the built-in rules with those of `ignore_files`.
"""
