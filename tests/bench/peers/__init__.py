"""syncd beside the tools that people use instead: the same tree, edits and quiet time, one after the other.

Begins at `comparison`, which gives the rows. `measurement` says what is measured, and how; `peer` what a tool has to
offer for that; `rules` holds what needs no process. The other modules are the tools.
"""
