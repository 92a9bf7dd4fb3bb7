"""The entries of each side, who changed a path, and what is done about it; all of it pure.

Begins at `reconcile`.
"""
