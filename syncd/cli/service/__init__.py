"""`syncd service`: the systemd user unit."""
