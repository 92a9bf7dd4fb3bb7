"""`syncd service`."""
