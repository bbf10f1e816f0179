"""Facts and choices about facts: pure values that every layer may use."""
