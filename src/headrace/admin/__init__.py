"""Reports and requests for operators: lag, dead letters, parked keys, queues, schedules."""
