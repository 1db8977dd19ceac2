"""The verbs of the `pilothouse` command that run on the server: serve, migrate, backup, keys, database, accounts."""
