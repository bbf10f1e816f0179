"""Our HTTP API, seen from outside."""
