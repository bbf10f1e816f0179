"""What operators read and ask for: lag, dead letters, parked keys, queues, schedules."""
