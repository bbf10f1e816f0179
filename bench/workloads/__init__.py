"""Our own programs, one for each row of the table, driving the real parts of the platform."""
