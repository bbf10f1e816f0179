"""Ordered key-value maps; a group of changes lands together or not at all. A driver a module."""
