"""syncd keeps a remote sandbox's workspace equal to a directory on your laptop."""

__version__ = "0.1.0"
