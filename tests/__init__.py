"""The tests of syncd."""
