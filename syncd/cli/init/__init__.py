"""`syncd init`."""
