"""Facts and choices about facts: pure values that every room may use."""
