"""The daemon: its loop, the commands that it receives, and the parts that it is made of.

Begins at `build`, which makes the parts, and `loop`, which runs them.
"""
