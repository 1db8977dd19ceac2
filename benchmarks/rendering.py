"""`pilothouse serve` that renders all messages that have none in one go, as it begins.

The product does that too (`store.backfill`), some thousands of rows each five minutes: a database that is filled by SQL
would be measured without what reads of a used one answer with.
"""

from __future__ import annotations

from pilothouse_client.cli import main as command
from pilothouse_server.store import backfill


def main() -> None:
    """The command."""
    if not hasattr(backfill, "_MOST_BATCHES"):
        raise RuntimeError("the batches have another name: this must follow the product")
    backfill._MOST_BATCHES = 1_000_000
    command()


if __name__ == "__main__":
    main()
