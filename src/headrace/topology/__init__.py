"""A deployment as a graph; pure."""
