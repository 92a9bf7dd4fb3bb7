"""The git repository in the sandbox: made of what was sent, followed sync by sync, and read for the agent's commits.

Begins at `agent_repository`.
"""
