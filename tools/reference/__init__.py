"""The reference page and the manual page, from the commands and the configuration; see `python -m tools.reference`."""
