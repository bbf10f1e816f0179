"""One running node: every object built, started and stopped."""
