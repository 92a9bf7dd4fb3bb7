"""Which faults put into the rules and the sync's core no test would notice: `python -m tools.mutation`."""
