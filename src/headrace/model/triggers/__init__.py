"""Triggers that an author can declare, as plain values."""
