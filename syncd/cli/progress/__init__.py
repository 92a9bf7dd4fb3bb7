"""Shows a waiting person how far a sync is. Begins at `observer`."""
