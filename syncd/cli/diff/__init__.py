"""`syncd diff`: what was changed in the sandbox, as a patch; and what several agents did, side by side.

Begins at `command`.
"""
