"""The sandbox's life: acquiring it, deleting in it, what its agent changed, and telling the agent.

Begins at `provider`.
"""
