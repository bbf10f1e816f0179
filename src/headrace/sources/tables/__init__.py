"""What serves `SqlTable`: an outbox in SQLite, logical replication from PostgreSQL."""
