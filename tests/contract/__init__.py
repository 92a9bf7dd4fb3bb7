"""Tests of the emulator against the public API description."""
