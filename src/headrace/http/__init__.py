"""What is seen from outside."""
