"""Whole topologies on virtual time, under seeded faults, judged by the auditor."""
