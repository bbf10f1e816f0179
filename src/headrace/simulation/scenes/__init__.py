"""What a simulation plays beside its functions: queues, buses, calendars, consumers by lag."""
