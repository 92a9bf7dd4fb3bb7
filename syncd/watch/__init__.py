"""Reports that something changed, and decides when the workspace has been quiet for long enough.

Begins at `interface`. `inotify_watch` is the normal watch; `debounce` has the rule about quiet periods.
"""
