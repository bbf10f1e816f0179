"""What a simulation plays beside its functions: queues, buses, schedules, consumers by lag."""
