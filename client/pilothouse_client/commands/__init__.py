"""The verbs of the `pilothouse` command, one small module each; `pilothouse_client.cli` finds them."""
