"""A bounded history of runs, log lines and counters."""
