"""Reports that something changed, and decides when the workspace has been quiet for long enough.

Begins at `inotify_watch`; `changes` has the rule about quiet periods.
"""
