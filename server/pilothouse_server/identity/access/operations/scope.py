"""The scope of a request about identity: a namespace, or all of them."""

from __future__ import annotations

from pilothouse_server.errors import not_found
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.store.unit_of_work import ReadTransaction


async def scope_of(transaction: ReadTransaction, namespace: str) -> int | None:
    """The id of the namespace named; None where none is, which is over all of them.

    Raises:
        NotFound: the namespace.
    """
    if not namespace:
        return None
    found = await grants.find_namespace(transaction, namespace)
    if found is None:
        raise not_found("namespace", namespace)
    return found
