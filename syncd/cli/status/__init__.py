"""`syncd status`."""
