"""What survives a crash: storage, logs, state and timers."""
