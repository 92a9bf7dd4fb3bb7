"""syncd in this process against the emulator."""
