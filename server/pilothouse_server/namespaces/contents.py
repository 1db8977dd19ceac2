"""The contents of namespaces, as the nouns above this one describe them: how to delete, forget and count them.

`app.py` collects the parts from the nouns, so that this noun imports none of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pilothouse_server.namespaces.model import Quota
from pilothouse_server.rpc.noun import InNamespaces
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.resources import NamespaceId

# Returns the usage that counts against the quota of a namespace.
QuotaUsage = Callable[[ReadTransaction, NamespaceId], Awaitable[Quota]]


@dataclass(frozen=True, slots=True)
class Contents:
    """The contributions of the nouns inside namespaces, in the order in which their resources are deleted."""

    nouns: Sequence[InNamespaces]
    quota_usage: QuotaUsage

    async def count(self, transaction: ReadTransaction, namespace_id: NamespaceId) -> dict[str, int]:
        """Returns how many resources of each kind a namespace contains; kinds without any are left out."""
        counts: dict[str, int] = {}
        for noun in self.nouns:
            counts |= await noun.held(transaction, namespace_id)
        return {kind: count for kind, count in counts.items() if count}
