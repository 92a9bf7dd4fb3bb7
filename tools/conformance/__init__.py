"""A probe of the live API: each assumption of syncd's about the service, and what is found there.

Begins at `__main__`; `rows` has the assumptions.
"""
