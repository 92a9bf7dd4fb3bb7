"""Settings, the API key, clocks, errors and files that survive a crash: what every other package stands on.

Begins at `settings`.
"""
