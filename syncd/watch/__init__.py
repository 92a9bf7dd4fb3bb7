"""Hears that something changed, and says when it has been quiet for long enough.

Begins at `interface`; `inotify_watch` is the one that is used where it can be, `debounce` the rule.
"""
