"""The verbs of the `pilothouse` command, one small module each; `pilothouse_client.cli` says how they are found."""
