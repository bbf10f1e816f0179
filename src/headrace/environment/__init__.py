"""The only door to time, chance, tasks and files."""
