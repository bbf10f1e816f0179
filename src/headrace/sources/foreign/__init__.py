"""Events from brokers and queues of other systems."""
