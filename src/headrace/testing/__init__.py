"""A node inside a test, on virtual time."""
