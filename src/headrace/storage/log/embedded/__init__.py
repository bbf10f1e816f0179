"""The log inside the node's own storage file."""
