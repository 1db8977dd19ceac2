"""`pilothouse serve` that renders all messages that are missing in one pass at its start.

The product itself renders some thousands of rows every five minutes (`store.backfill`). A database that is filled
with SQL would otherwise be measured without the rendered messages that reads of a used database return.
"""

from __future__ import annotations

from pilothouse_client.cli import main as command
from pilothouse_server.store import backfill


def main() -> None:
    """Runs the command."""
    if not hasattr(backfill, "_MOST_BATCHES"):
        raise RuntimeError("the batches have another name: this must follow the product")
    backfill._MOST_BATCHES = 1_000_000
    command()


if __name__ == "__main__":
    main()
