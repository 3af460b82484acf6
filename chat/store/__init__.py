"""What is kept: one writer, many readers, and nothing acknowledged before it is on disk."""
