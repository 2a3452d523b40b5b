"""General helpers: files, logs, run records, command lines."""
