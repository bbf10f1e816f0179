"""Simulated topologies under seeded faults, on virtual time, for the development of Headrace itself."""
