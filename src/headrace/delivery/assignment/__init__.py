"""Who works on which partition, and over which instances."""
