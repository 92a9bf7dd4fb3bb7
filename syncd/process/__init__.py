"""When things happen: the daemon's loop, signals, the service manager, and the wiring of all parts."""
