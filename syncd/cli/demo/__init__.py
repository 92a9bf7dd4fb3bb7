"""`syncd demo`."""
