"""Headrace: functions set off by events, every effect exactly once."""
