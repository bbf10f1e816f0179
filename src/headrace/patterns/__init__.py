"""Which events are meant: event patterns, and an index over many of them. Pure."""
