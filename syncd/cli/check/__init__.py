"""`syncd check` and its report."""
