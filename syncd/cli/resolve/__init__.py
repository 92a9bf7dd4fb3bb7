"""`syncd resolve`: decides what waits for a person.

Begins at `waiting`; `command` reads the options, and prints the list.
"""
