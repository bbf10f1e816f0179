"""What is remembered and reported about runs."""
