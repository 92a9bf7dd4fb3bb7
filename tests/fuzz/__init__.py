"""Random scenarios of changes, faults and crashes, generated from a seed: `python -m tests.fuzz`."""
