"""The sandbox's life: acquire it, delete in it, find what its agent changed, and notify the agent.

Begins at `remote_changes`; `provider` acquires the sandbox.
"""
