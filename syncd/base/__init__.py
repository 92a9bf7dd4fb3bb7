"""What everything stands on: errors, clock, configuration, names for paths. Imports nothing of syncd but itself."""
