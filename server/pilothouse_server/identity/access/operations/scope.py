"""The scope of a request about identity: a namespace, or all of them."""

from __future__ import annotations

from pilothouse_server.errors import not_found
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.store.unit_of_work import ReadTransaction


async def scope_of(transaction: ReadTransaction, namespace: str) -> int | None:
    """Returns the id of the named namespace; None, for all namespaces, if no name is given.

    Raises:
        NotFound: the namespace.
    """
    if not namespace:
        return None
    found = await grants.find_namespace(transaction, namespace)
    if found is None:
        raise not_found("namespace", namespace)
    return found
