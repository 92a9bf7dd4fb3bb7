"""`syncd demo`: begins at `command`; `environment` has the emulator and the daemon that it shows."""
