"""`pilothouse` with something broken in it, for controls of the campaign: `python -m … NAME serve`."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from pilothouse_client.cli import main as command
from pilothouse_server.reconcile.observe.comparison import Comparison
from pilothouse_server.reconcile.queue import leadership
from tests.promises.watches.sabotage import another_history_goes_on


def lists_are_not_compared() -> None:
    """What a cluster's first lists hold is not compared with what was applied."""

    async def uncompared(_self: Comparison, _kinds: Collection[str]) -> None:
        return

    Comparison._compare = uncompared  # type: ignore[assignment,method-assign]


def leases_are_believed() -> None:
    """A lease is its holder's until the time that stands in it, however far away that is."""

    def never(_self: Any) -> None:
        return None

    leadership._Sight.unrenewed = property(never)  # type: ignore[assignment]


SABOTAGES = {
    made.__name__: made for made in (lists_are_not_compared, leases_are_believed, another_history_goes_on)
}


if __name__ == "__main__":
    SABOTAGES[sys.argv.pop(1)]()
    command()
