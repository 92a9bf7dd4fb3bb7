"""A."""


def compare(*a, **k):
    pass
