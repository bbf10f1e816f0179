"""The store in one SQLite file: one writer, group commit, fsync before acknowledgement."""
