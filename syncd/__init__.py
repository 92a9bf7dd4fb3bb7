"""syncd keeps a remote sandbox's workspace in sync with a directory on your laptop."""

__version__ = "0.1.0"
