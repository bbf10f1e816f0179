"""Synchronous calls of functions."""
