"""Speed, as ratios against what a user could type instead; see `python -m tools.bench`."""
