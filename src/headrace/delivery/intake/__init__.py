"""Intake between the readers of a stream and the next unit of work: batches, lanes, merges."""
