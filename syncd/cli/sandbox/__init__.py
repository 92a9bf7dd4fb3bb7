"""`syncd sandbox`."""
