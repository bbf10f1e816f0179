"""The only way to clock, randomness, tasks and failpoints."""
