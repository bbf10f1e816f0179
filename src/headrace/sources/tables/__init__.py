"""What serves `Table`: an outbox in SQLite, logical replication from PostgreSQL."""
