"""One sandbox: its state and its end, looks at it, removals in it, its repository and its set-up.

Begins at `looks`; `provider` acquires the sandbox, and `sandbox_state` knows what it holds.
"""
