"""`syncd apply`: brings home what was changed in the sandbox.

Begins at `execution`; `command` only reads the options.
"""
