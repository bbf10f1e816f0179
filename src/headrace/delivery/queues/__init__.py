"""Queues: delayed messages and consumers outside."""
