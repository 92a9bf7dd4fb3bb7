"""The state that survives a death of the process: one database a workspace, one transaction a step.

Begins at `state_db`.
"""
