"""`python -m pilothouse_client` is the `pilothouse` command, for where the script is not in the path."""

from __future__ import annotations

from pilothouse_client.cli import main

if __name__ == "__main__":
    main()
