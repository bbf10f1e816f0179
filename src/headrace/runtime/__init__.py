"""The author's code, in other processes."""
