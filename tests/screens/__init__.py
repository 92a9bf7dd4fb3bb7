"""Pictures of what syncd shows on a terminal, made from the real program: `python -m tests.screens`."""
