"""A folder as a source: what is there, what has changed since, and when to look."""
