"""Streams of events in partitions, by driver."""
