"""The messages between host, zygotes and instances, and the frames that carry them."""
