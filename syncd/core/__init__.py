"""Settings, the API key, clocks, errors and files that survive a crash. Every other package builds on these.

Begins at `settings`.
"""
