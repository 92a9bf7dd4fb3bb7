"""What a person who waits sees."""
