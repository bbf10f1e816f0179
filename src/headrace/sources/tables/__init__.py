"""Sources of `SqlTable`: an outbox in SQLite, logical replication from PostgreSQL."""
