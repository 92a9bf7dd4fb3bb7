"""Histories from outside: a person and an agent write in real time, and a checker judges by what both saw."""
