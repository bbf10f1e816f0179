"""Apps the workloads deploy: what an author would have written, and nothing more."""
