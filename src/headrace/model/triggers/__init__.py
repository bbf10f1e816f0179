"""What an author can declare to set a function off, as plain values."""
