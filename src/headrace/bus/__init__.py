"""Built out of delivery: what is more than one function and one stream."""
