"""`syncd status`: shows the status document."""
