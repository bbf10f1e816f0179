"""Streams of events in partitions. A driver a module."""
