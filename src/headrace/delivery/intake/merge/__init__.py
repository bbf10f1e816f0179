"""Several streams merged into one, in event-time order."""
