"""Decisions, as functions of values and time: no clock, no files, no threads, no network."""
