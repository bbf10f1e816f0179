"""Assignment of partitions to workers and consumer runs."""
