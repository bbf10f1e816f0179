"""Event patterns, and an index over many of them. Pure."""
