"""The progress that a waiting person sees."""
