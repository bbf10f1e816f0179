"""Data that survives a crash: key-value rows, the log of streams or an outbox to it, state."""
