"""The progress that a waiting person sees. Begins at `display`."""
