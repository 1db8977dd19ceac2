"""`pilothouse` with injected faults: `python -m … NAME,NAME serve`.

The campaign's controls run it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any

from pilothouse_client.cli import main as command
from pilothouse_server.reconcile.observe.comparison import Comparison
from pilothouse_server.reconcile.queue import leadership
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.watch.hub import Hub
from tests.promises.watches.fault_injection import nobodys


def lists_are_not_compared() -> None:
    """Omits the comparison of a cluster's first lists with the applied state."""

    async def uncompared(_self: Comparison, _kinds: Collection[str]) -> None:
        return

    Comparison._compare = uncompared  # type: ignore[assignment,method-assign]


def leases_are_believed() -> None:
    """Trusts a lease until its stored expiry time, however far away that is."""

    def never(_self: Any) -> None:
        return None

    leadership._Sight.unrenewed = property(never)  # type: ignore[assignment]


def changes_are_not_told() -> None:
    """Drops events of modifications from watches; creations and deletions remain."""
    publish = Hub.publish

    def forgetful(self: Hub, events: Sequence[FeedEvent], newest: int) -> None:
        publish(self, [nobodys(event) if event.kind == "modified" else event for event in events], newest)

    Hub.publish = forgetful  # type: ignore[method-assign]


INJECTED_FAULTS = {
    made.__name__: made for made in (lists_are_not_compared, leases_are_believed, changes_are_not_told)
}


if __name__ == "__main__":
    for each in sys.argv.pop(1).split(","):
        INJECTED_FAULTS[each]()
    command()
