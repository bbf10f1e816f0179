"""Scenes of a simulation in addition to its functions: queues, buses, schedules, consumers by lag."""
