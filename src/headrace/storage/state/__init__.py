"""What functions remember between invocations."""
