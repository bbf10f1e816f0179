"""Delivery of events to functions; read `partition/worker.py` first."""
