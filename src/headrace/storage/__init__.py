"""What survives a crash: key-value rows, the log of streams, state."""
