"""Event sources: schedules, files, tables, foreign brokers. A source appends events to a stream."""
