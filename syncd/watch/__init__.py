"""Reports that something changed, and decides when the workspace has been quiet for long enough.

Start reading at `interface`. `inotify_watch` is the normal watch; `debounce` has the rule about quiet periods.
"""
