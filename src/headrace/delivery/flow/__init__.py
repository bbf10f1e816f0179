"""Flow control: when a function may run."""
