"""Random stories of a workspace and all that befalls it, replayed from a seed: `python -m tests.fuzz`."""
