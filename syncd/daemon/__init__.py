"""The loop that decides what happens when, and puts the parts together.

Begins at `build`, which makes the parts, and `loop`, which runs them.
"""
