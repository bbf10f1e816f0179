"""Rows of function state in the store."""
