"""The emulator against the public API description."""
