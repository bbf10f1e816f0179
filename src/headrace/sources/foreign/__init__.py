"""Events from brokers and queues that somebody else keeps."""
