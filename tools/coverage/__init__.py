"""Is each line of a pure module run by the module's own unit tests? `python -m tools.coverage`."""
