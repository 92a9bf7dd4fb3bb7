"""Screenshots of syncd on a terminal, made with the real program: `python -m tools.screens`."""
