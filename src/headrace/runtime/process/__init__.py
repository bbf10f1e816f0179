"""Processes as the host sees them: warden, zygotes, instances, and the channels to them."""
