"""A local stand-in for the sandbox API and its bucket: real HTTP on loopback, signed URLs that expire and verify."""
