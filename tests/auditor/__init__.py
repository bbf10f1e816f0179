"""The auditor: outside the platform, imports nothing of it, judges what it can read back."""
